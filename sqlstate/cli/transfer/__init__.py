"""Entries outside a store: import, export, and their forms. Start reading at `import_export`."""
