"""Opening databases, migrations, transactions."""
