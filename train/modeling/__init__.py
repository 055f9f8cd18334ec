"""Model loading, attention and forward passes."""
