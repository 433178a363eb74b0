"""What an operator asks: how the jobs are, why one does not run, and how to set it going again."""
