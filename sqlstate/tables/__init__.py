"""One table, one module, or several named after it, which alone know its SQL. Start reading at `state`."""
