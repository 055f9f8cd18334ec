"""Folders that are replaced as a whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to write in, which takes the place of `folder` when the block ends well.

    What an interrupted earlier attempt left beside `folder` is removed first.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    former = folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, former):
        if leftover.exists():
            shutil.rmtree(leftover)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh)
        raise
    if folder.exists():
        folder.rename(former)
    fresh.rename(folder)
    if former.exists():
        shutil.rmtree(former)
