"""Reading repositories of the AT Protocol: CAR files, commits, trees, keys, identifiers. Nothing here fetches."""
