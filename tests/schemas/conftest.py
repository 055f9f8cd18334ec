"""Fixtures of the schemas' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.ledger_rows import a_run

from schemas.ledger.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "cot.duckdb", a_run()) as opened:
        yield opened
