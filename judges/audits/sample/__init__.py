"""Draws the rows of an audit."""
