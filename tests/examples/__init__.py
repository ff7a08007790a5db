"""Tests of the programs in docs/examples: they are started as users start them, and really killed."""
