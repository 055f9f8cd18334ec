"""Sampling of completions and their segments."""
