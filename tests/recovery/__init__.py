"""What opening does after a crash."""
