"""How data is made: generate, verify, filter."""
