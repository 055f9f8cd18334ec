"""How data is made: generate, verify, filter."""

from cli import end_quietly_while_importing

end_quietly_while_importing()
