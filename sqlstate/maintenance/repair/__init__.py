"""Repairs a damaged store from what proves itself. Start reading at `repair`."""
