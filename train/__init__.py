"""How a policy learns and is evaluated."""
