"""Training stages of the synthetic world, and the tables of their results."""
