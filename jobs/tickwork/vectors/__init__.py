"""What every corpus gets: its texts as vectors, the exact nearest of each, and the models that make them."""
