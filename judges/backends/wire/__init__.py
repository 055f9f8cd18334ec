"""What comes over the wire from a model server, read in one place for every protocol."""
