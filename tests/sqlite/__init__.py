"""Connections, locks, checkpoints, forks: what stands between the tables and the file."""
