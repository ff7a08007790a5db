"""Proofs made from a store."""
