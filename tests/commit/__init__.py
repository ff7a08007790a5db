"""From changes to one durable commit."""
