"""TRL trainers that see videos."""
