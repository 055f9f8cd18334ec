"""A laptop-sized world with known truth, for demos, tests, benchmarks and experiments."""
