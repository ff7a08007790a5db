"""Tests of the report: what it says of a store, its page in a browser, and its charts."""
