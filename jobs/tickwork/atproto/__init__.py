"""Repositories of the AT Protocol, read and verified."""
