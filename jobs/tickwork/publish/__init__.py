"""Generations: what is published of a corpus, made in bounded stages, verified, and switched to by one rename."""
