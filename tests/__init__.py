"""The tests: what a user relies on, and the judge that every store is shown to when its test ends."""
