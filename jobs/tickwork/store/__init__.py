"""Migrations of the databases of the sources."""
