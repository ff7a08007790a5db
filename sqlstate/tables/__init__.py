"""One table, one module, which alone knows its SQL. Start reading at `state`."""
