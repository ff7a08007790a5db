"""What a store was, and how it changed: changes, views of the past, undo, differences. Start reading at `changes`."""
