"""The write-ahead log against itself and the recorded roots, read from its first record on."""
