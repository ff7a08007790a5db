"""The same for tasks."""
