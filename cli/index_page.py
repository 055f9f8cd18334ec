"""The index of an output folder: `OUT/index.html` leads to all that is in it, and to its origins.

    write_index_page(config.output_dir)        # at the end of a command

It links every page, picture, table and file; a folder below that has an index of its own is one
link. Where it comes from follows the saved options: a dataset's build and its questions, a model's
run and its dataset, back to what no command of ours made. An evaluation's page is its folder's
index: it includes the template of its `folder_listing`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cli.html_page import data_uri, write_page
from cli.output_folder import owner_of

INDEX = "index.html"
_TEMPLATE = Path(__file__).parent / "index_page.html.jinja"
_PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_MOST_PICTURE_BYTES = 600_000
_MOST_PICTURES = 12
_MOST_LISTED = 200  # files of one folder below; the rest is behind the link to the folder
_MOST_OPEN = 12
_PASSING = (".wal", ".tmp")  # beside an open ledger
_MOST_ORIGINS = 5  # steps back

# What a file of ours is, by its place in the folder; the first pattern that fits.
_MEANINGS: Mapping[str, str] = {
    "browse/index.html": "every row, kept and rejected, to look at and to search",
    "pages/index.html": "rollouts by step: frames, completions, rewards, advantages",
    "report.html": "the report, with every disagreement",
    "report.md": "the report",
    "README.md": "the card",
    "report.json": "the report's numbers",
    "curves.png": "curves of the run",
    "pictures/*.png": "a picture of the card or report",
    "dataset/*.parquet": "the dataset",
    "videop2r/*": "the dataset in VideoP2R's format",
    "trl/*": "the dataset as TRL's messages",
    "questions/*": "all questions with their marks",
    "predictions.parquet": "answers with their scores",
    "answers.jsonl": "answers as they came",
    "metrics.jsonl": "metrics of every step",
    "rollouts/*.jsonl": "completions with rewards and weights",
    "*.duckdb": "ledger: every call, verdict and price",
    "config.json": "options of the run",
    "options.json": "options of the run",
    "progress.json": "progress, for pipeline.status",
    "estimate.json": "what the run was expected to cost",
    "output.txt": "what the commands printed",
    "truth_labels.jsonl": "labels from the known truth",
    "crucial_frames.json": "crucial frames against the truth",
}
# Options that name what a run was made from, in the order of the page.
_ORIGINS: Mapping[str, str] = {
    "model": "model",
    "dataset": "dataset",
    "questions": "questions",
    "held_out_questions": "held-out questions",
    "predictions": "answers",
    "observations_from": "observations",
    "compare": "compared with",
    "build": "build",
    "run": "RL run",
    "ledger": "ledger",
    "audit": "audit",
    "media_root": "media",
}


@dataclass(frozen=True)
class FileLink:
    """A file of the folder: its address and name, what it is, its size, a small picture of it."""

    href: str
    name: str
    meaning: str
    size: str
    picture: str = ""


@dataclass(frozen=True)
class FolderLink:
    """A folder below: its files, or its own index alone."""

    href: str
    name: str
    index: str
    files: tuple[FileLink, ...]
    num_files: int

    @property
    def is_open(self) -> bool:
        """Whether its files are shown at once: few, and all of them meant for people."""
        return self.num_files <= _MOST_OPEN and all(file.meaning for file in self.files)


@dataclass(frozen=True)
class Origin:
    """What the folder was made from: a name, the place it leads to, and what that came from."""

    kind: str
    name: str
    href: str
    run: str
    run_href: str
    origins: tuple["Origin", ...] = ()


@dataclass(frozen=True)
class FolderListing:
    """All that an index shows, by `template`, which any page may include."""

    files: tuple[FileLink, ...]
    folders: tuple[FolderLink, ...]
    origins: tuple[Origin, ...]
    template: str = "folder_links.html.jinja"


def write_index_page(folder: Path, origins: Mapping[str, Path] | None = None) -> None:
    """Write `folder/index.html`. `origins` are further ones, beside those of the saved options."""
    owner = owner_of(folder)
    name = folder.resolve().name
    write_page(
        folder / INDEX,
        _TEMPLATE,
        {
            "heading": name,
            "made_by": f"{owner.what}, by {owner.command}" if owner else "",
            "listing": folder_listing(folder, origins),
        },
        title=name,
    )


def folder_listing(folder: Path, origins: Mapping[str, Path] | None = None) -> FolderListing:
    """The files of a folder, the folders below, and where it comes from."""
    entries = sorted(path for path in folder.iterdir() if _is_shown(path))
    files = [path for path in entries if path.is_file() and path.name != INDEX]
    return FolderListing(
        files=tuple(_with_pictures(_file(folder, folder, path) for path in files)),
        folders=tuple(_folder(folder, path) for path in entries if path.is_dir()),
        origins=_origins_of(folder, folder, {folder.resolve()}, origins or {}),
    )


def _is_shown(path: Path) -> bool:
    """Not what is hidden, or goes when the command that writes the page lets its ledger go."""
    return not (path.name.startswith(".") or path.name.endswith(_PASSING)) and path.exists()


def _file(root: Path, folder: Path, path: Path) -> FileLink | None:
    """A file as the index in `root` links it, named as in its own `folder`; None where it has gone
    meanwhile, as a checkpoint that was replaced."""
    relative = path.relative_to(root).as_posix()
    meaning = next((what for name, what in _MEANINGS.items() if fnmatch(relative, name)), "")
    picture, kind = "", _PICTURES.get(path.suffix.lower(), "")
    try:
        size = path.stat().st_size
        if kind and 0 < size <= _MOST_PICTURE_BYTES:
            picture = data_uri(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    name = path.relative_to(folder).as_posix()
    return FileLink(quote(relative), name, meaning, _size(size), picture)


def _with_pictures(files: Iterator[FileLink | None]) -> Iterator[FileLink]:
    """The files that are there; of many pictures the first ones are shown, the others named."""
    num_pictures = 0
    for file in files:
        if file is None:
            continue
        num_pictures += bool(file.picture)
        if file.picture and num_pictures > _MOST_PICTURES:
            yield FileLink(file.href, file.name, file.meaning, file.size)
        else:
            yield file


def _folder(root: Path, path: Path) -> FolderLink:
    relative = path.relative_to(root).as_posix()
    found = sorted(_files_below(path))
    index = path / INDEX
    owner = owner_of(path)
    meaning = _MEANINGS.get(f"{relative}/{INDEX}", owner.what if owner else "its index")
    listed = [] if index.is_file() else found[:_MOST_LISTED]
    return FolderLink(
        href=quote(f"{relative}/{INDEX}" if index.is_file() else f"{relative}/"),
        name=relative,
        index=meaning if index.is_file() else "",
        files=tuple(_with_pictures(_file(root, path, file) for file in listed)),
        num_files=len(found),
    )


def _files_below(folder: Path) -> Iterator[Path]:
    try:
        paths = [*folder.iterdir()]
    except FileNotFoundError:
        return
    for path in paths:
        if not _is_shown(path):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _files_below(path)


def _size(num_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"


def _origins_of(
    page: Path, folder: Path, seen: set[Path], further: Mapping[str, Path]
) -> tuple[Origin, ...]:
    """What the options in `folder` name, as seen from the index in `page`."""
    named = [(kind, str(path)) for kind, path in further.items()]
    named += list(_named_origins(_saved_options(folder)))
    own = (folder.resolve(), page.resolve())
    return tuple(
        _origin(page, kind, name, seen) for kind, name in named if Path(name).resolve() not in own
    )


def _named_origins(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for option, kind in _ORIGINS.items():
        value = options.get(option)
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and name:
                yield kind, name


def _saved_options(folder: Path) -> dict[str, Any]:
    """The options that a command of ours saved in the folder; empty without any."""
    owner = owner_of(folder)
    if owner is None or not owner.mark:
        return {}
    options: dict[str, Any] = json.loads((folder / owner.options_file).read_text("utf-8"))
    return options


def _origin(page: Path, kind: str, name: str, seen: set[Path]) -> Origin:
    path = Path(name)
    if not path.exists():  # a model of the Hub, or what has been moved away
        return Origin(kind, name, "", "", "")
    run = next((place for place in (path, path.parent) if owner_of(place) is not None), None)
    href = _address(page, path)
    if run is None or run.resolve() in seen or len(seen) > _MOST_ORIGINS:
        return Origin(kind, name, href, "", "")
    owner = owner_of(run)
    assert owner is not None
    return Origin(
        kind=kind,
        name=name,
        href=href,
        run="" if run.resolve() == path.resolve() else f"{owner.what} in {run}",
        run_href=_address(page, run),
        origins=_origins_of(page, run, seen | {run.resolve()}, {}),
    )


def _address(page: Path, path: Path) -> str:
    """A path as a link of `page / INDEX`: a folder's index where it has one."""
    if (path / INDEX).is_file():
        path = path / INDEX
    relative = os.path.relpath(path.resolve(), page.resolve()).replace(os.sep, "/")
    return quote(relative) + ("/" if path.is_dir() else "")
