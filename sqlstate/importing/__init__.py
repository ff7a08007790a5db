"""Entries from outside: what sources have in common, and the files of other stores. Start reading at `import_from`."""
