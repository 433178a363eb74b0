"""The sources: one folder each, which is one object, `SOURCE`."""
