"""The search service: one box over all that is published, Datasette with our pages."""
