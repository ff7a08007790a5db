"""Every byte that others recompute: names, values, the tree. No clock, files, threads or SQL. Read `names` first."""
