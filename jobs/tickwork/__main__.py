"""`python -m tickwork`, the same as the console command."""

from tickwork.cli import main

main()
