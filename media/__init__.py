"""Videos and images to frames, each with its index and its real time."""
