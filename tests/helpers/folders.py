"""Where the tests and their reference values are, whatever folder a test stands in."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
REFERENCE = TESTS / "reference"
