"""Searching what is published: by words, by meaning, by both."""
