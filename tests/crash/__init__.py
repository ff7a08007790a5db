"""Campaigns that cut power, kill, fail and damage, and judge what is left: `python -m tests.crash`."""
