"""Who decides: answer metrics, the sufficiency judge, and the backends that talk to models."""

from cli import end_quietly_while_importing

end_quietly_while_importing()
