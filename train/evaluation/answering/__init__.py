"""How a model answers the questions of an evaluation, here or on a server; the log of answers."""
