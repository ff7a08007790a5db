"""From changes to one durable commit. Start reading at `commit`."""
