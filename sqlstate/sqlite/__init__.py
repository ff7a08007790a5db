"""SQLite as a store uses it: connections, locks, checkpoints, the main file. Start reading at `engine`."""
