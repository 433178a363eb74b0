"""Tickwork: bounded, polite, restartable jobs for data that comes from remote sources."""

__version__ = "0.1.0"
