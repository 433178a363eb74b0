"""What is published of a corpus, as it lies on disk: layout, description, vectors, index; opening and switching."""
