"""How a policy learns and is evaluated."""

from cli import end_quietly_while_importing

end_quietly_while_importing()
