"""Clips, questions and their truth."""
