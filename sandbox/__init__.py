"""A synthetic world with known truth, laptop-sized: for demos, tests, benchmarks, experiments."""

from cli import end_quietly_while_importing

end_quietly_while_importing()
