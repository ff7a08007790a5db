"""Check, repair and backup."""
