"""Stores on a cluster: three real nodes of rqlite on this machine, started, killed and cut off by the tests."""
