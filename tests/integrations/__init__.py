"""Tests of the adapters, each run where its framework is installed."""
