"""Who decides: answer metrics, the sufficiency judge, and the backends that talk to models."""
