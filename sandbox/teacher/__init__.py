"""The scripted teacher, its random faults and its systematic label noise."""
