"""Readers of published annotation files."""
