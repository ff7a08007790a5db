"""Tests of the adapter for LangGraph."""
