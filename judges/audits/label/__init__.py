"""Labels rows by hand: page, server, files."""
