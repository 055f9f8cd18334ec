"""`python -m pipeline.push OUT OWNER/NAME`: a dataset to the Hub, listed before it is sent."""
