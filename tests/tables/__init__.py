"""One table, one module of tests."""
