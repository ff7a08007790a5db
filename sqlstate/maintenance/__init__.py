"""What keeps a store sound: check, repair, backup. Start reading at `check.check`."""
