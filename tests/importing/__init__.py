"""What importing has of its own."""
