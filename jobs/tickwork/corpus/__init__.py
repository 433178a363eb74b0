"""What a source declares to have its rows found: documents, fields, and how they are shown."""
