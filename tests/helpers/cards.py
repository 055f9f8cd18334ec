"""The data card of a ledger, and the cells of its tables."""

import re
from pathlib import Path
from typing import Any

import datasets

from pipeline.card import write_card
from pipeline.export import export_dataset
from schemas.ledger.ledger import Ledger

datasets.disable_progress_bars()


def card_of(ledger: Ledger, out: Path, **options: Any) -> str:
    export_dataset(ledger, out)
    return write_card(ledger, out, **options).read_text()


def tables(card: str) -> dict[str, list[list[str]]]:
    """The cells of every table, by its header's cells joined with "/"."""
    found: dict[str, list[list[str]]] = {}
    block: list[list[str]] = []
    for line in [*card.splitlines(), ""]:
        if line.startswith("|"):
            block.append([part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif block:
            found["/".join(block[0])] = block[2:]
            block = []
    return found
