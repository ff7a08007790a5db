"""The tests on Windows: `run` runs them under wine, and skipped.py lists those that cannot run there, and why."""
