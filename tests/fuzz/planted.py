"""Kinds with planted faults, for the test of the fuzzing itself."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz.harness import BrokenPromise, Case, Kind, Runner


def _sound(case: Case) -> Counter[str]:
    time.sleep(0.01)
    return Counter({"tries": 1})


def _faulty(case: Case) -> Counter[str]:
    """Case 1 breaks a promise, 2 raises, 3 kills its process, 4 hangs; the others are sound."""
    match case.number:
        case 1:
            raise BrokenPromise(f"promised otherwise, drawn {case.draw.randrange(1000)}")
        case 2:
            raise SystemExit("ended by itself")
        case 3:
            os._exit(7)
        case 4:
            time.sleep(3600)
    return _sound(case)


@contextmanager
def open_sound(folder: Path) -> Iterator[Runner]:
    """Every case is sound."""
    yield _sound


@contextmanager
def open_faulty(folder: Path) -> Iterator[Runner]:
    """Four cases are not."""
    yield _faulty


SOUND = Kind("sound", "fuzz.planted:open_sound", "tries", 20, 1.0)
FAULTY = Kind("faulty", "fuzz.planted:open_faulty", "tries", 20, 1.0, case_seconds=1.0)
