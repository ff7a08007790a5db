"""Copies a store into one file, and puts a copy in its place. Start reading at `backup`."""
