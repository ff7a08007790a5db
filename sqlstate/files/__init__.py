"""Files that are whole or not there. Start reading at `replace`."""
