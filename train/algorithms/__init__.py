"""Advantages, token weights and the table of algorithms."""
