"""How a store was, and how it changed."""
