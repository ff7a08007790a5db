"""The independent judge: written from docs/reference/file-format.md alone, sharing no code with sqlstate."""
