"""Checks a store: every row is read again and compared. Start reading at `check`."""
