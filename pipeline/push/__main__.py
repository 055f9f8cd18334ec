"""`python -m pipeline.push`: see the package."""

from cli.config import run_command
from pipeline.push import PROG, main

if __name__ == "__main__":
    run_command(PROG, main)
