"""Asks judges about the rows of an audit."""
