"""What lies in a model folder beside its weights."""
