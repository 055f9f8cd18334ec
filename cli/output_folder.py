"""Whose output folder it is: a command goes on in its own and refuses one that another filled.

    resumes = check_folder(config.output_dir, "train.rl")      # early: reads only
    ...                                                        # open model, data, judge
    claim_folder(config.output_dir, "train.rl")                # before the first file is written

A folder belongs to the command whose options lie in it. It is free again where that run never
began: where there is nothing yet that a run would have to be resumed for.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.exit_status import UsageError

MADE_BY = ".made_by"
"""In folders of commands that keep no options there: the command's name."""

_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What torch's and safetensors' writers say where the operating system refuses more bytes.
_FULL_DISK_WORDS = (
    "no space left",
    "disk quota exceeded",
    "file too large",
    "unexpected pos",
    "iostream error",
    "file write failed",
)
_MODEL = ("*.safetensors", "*.bin", "config.json", "tokenizer*", "checkpoint-*", "adapter")
_SHOWN_NAMES = 3
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Owner:
    """A command that fills a folder."""

    command: str
    what: str
    """What it leaves there."""
    options_file: str
    mark: str
    """An option in that file which only this command has."""
    writes: tuple[str, ...]
    """Names, as patterns, that it writes: it takes no folder with such files of others."""
    begun: tuple[str, ...]
    """Names of what a run has to be resumed for."""
    has_ledger: bool = False


OWNERS = (
    Owner(
        "pipeline.build_cot",
        "a build",
        "config.json",
        "attempts",
        (
            "cot.duckdb",
            "dataset",
            "README.md",
            "pictures",
            "progress.json",
            "videop2r",
            "trl",
            "index.html",
            "browse",
        ),
        ("cot.duckdb", "dataset", "progress.json"),
        has_ledger=True,
    ),
    Owner(
        "train.sft",
        "a fine-tuned model",
        "options.json",
        "target",
        (*_MODEL, "README.md", "report.*", "index.html"),
        ("checkpoint-*", "*.safetensors", "adapter", "report.json"),
    ),
    Owner(
        "train.rl",
        "a reinforcement learning run",
        "options.json",
        "algo",
        (*_MODEL, "model", "metrics.jsonl", "pages", "rollouts", "README.md", "index.html"),
        ("checkpoint-*", "metrics.jsonl", "model", "adapter"),
        has_ledger=True,
    ),
    Owner(
        "train.evaluate",
        "an evaluation",
        "config.json",
        "compare",
        ("answers.jsonl", "predictions.parquet", "report.json", "index.html", "calls.duckdb"),
        ("answers.jsonl", "predictions.parquet", "calls.duckdb"),
        has_ledger=True,
    ),
    Owner(
        "judges.audit sample",
        "an audit",
        "config.json",
        "max_per_video",
        ("report.*", "pictures", "index.html"),
        ("audit.duckdb",),
        has_ledger=True,
    ),
    Owner("sandbox.clips", "a rendered world", "config.json", "stills", ("*",), ("*",)),
    Owner("sandbox.learning", "lessons", "config.json", "faulty_questions", ("*",), ("done",)),
    Owner("sandbox.demo", "a demo", MADE_BY, "", ("index.html",), ("world", "cot")),
    Owner(
        "judges.audit report",
        "a report",
        MADE_BY,
        "",
        ("report.*", "pictures", "index.html"),
        ("report.*",),
    ),
    Owner("sandbox.tiny_model", "a random model", MADE_BY, "", ("*",), ("*",)),
    Owner("sandbox.warm_up", "a warmed-up model", MADE_BY, "", ("*",), ("*",)),
    Owner("sandbox.scripted_dataset", "a scripted dataset", MADE_BY, "", ("*",), ("*",)),
)


def check_folder(folder: Path, command: str, *, option: str = "--output-dir") -> bool:
    """Whether `command` has written its options into `folder` before; nothing is written.

    Raises UsageError where the folder cannot be used, or holds what another command made, or files
    that this one would replace.
    """
    own = _owner(command)
    _refuse_unusable(folder, own, option)
    for owner in OWNERS:
        if owner is not own and _is_marked(folder, owner) and _has_begun(folder, owner):
            raise UsageError(
                f"{option} {folder} holds {owner.what} of {owner.command}; give {command} another"
                " folder"
            )
    if _is_marked(folder, own):
        return True
    of_no_run = {owner.options_file for owner in OWNERS if _is_marked(folder, owner)}
    names = sorted({path.name for path in _found(folder, own.writes)} - of_no_run)
    if names:
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        raise UsageError(
            f"{option} {folder} holds {', '.join(names[:_SHOWN_NAMES])}{more}, but not the"
            f" {own.options_file} of a run of {command}, which would replace that; give a new"
            " folder"
        )
    return False


def has_begun(folder: Path, command: str) -> bool:
    """Whether there is something in `folder` that a run of `command` would be resumed for."""
    return _has_begun(folder, _owner(command))


def claim_folder(folder: Path, command: str, *, option: str = "--output-dir") -> bool:
    """As `check_folder`, and make the folder. A command without an options file marks it.

    What is left of a run of another command that never began is forgotten.
    """
    resumes = check_folder(folder, command, option=option)
    own = _owner(command)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for owner in OWNERS:
            if owner.options_file != own.options_file and _is_marked(folder, owner):
                (folder / owner.options_file).unlink()
        if own.options_file == MADE_BY:
            (folder / MADE_BY).write_text(f"{command}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(cannot_be_written(folder, error, option)) from None
    return resumes


@contextmanager
def left_as_it_was(folder: Path, command: str) -> Iterator[None]:
    """A run that ends in the block before it has begun leaves no folder that it has made."""
    was_there = folder.exists()
    try:
        yield
    except (UsageError, ModuleNotFoundError):
        if not was_there and folder.is_dir() and not has_begun(folder, command):
            shutil.rmtree(folder)
        raise


@contextmanager
def full_disk_is_told(place: Path) -> Iterator[None]:
    """Where the disk is full, raise OSError (ENOSPC), whatever a writer of weights makes of it."""
    try:
        yield
    except Exception as error:
        words = str(error).lower()
        is_full = isinstance(error, OSError) and error.errno in _DISK_IS_FULL
        if is_full or any(each in words for each in _FULL_DISK_WORDS):
            raise OSError(errno.ENOSPC, "no space is left on the disk", str(place)) from error
        raise


def owner_of(folder: Path) -> Owner | None:
    """The command that made what is in a folder; None where none of ours did."""
    return next((owner for owner in OWNERS if _is_marked(folder, owner)), None)


def make_folder(folder: Path, *, option: str = "--output-dir") -> None:
    """Make an output folder. Raises UsageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(cannot_be_written(folder, error, option)) from None


def make_room_for(file: Path, *, option: str = "--output-file") -> None:
    """Make the folder of an output file, before there is work that would be lost.

    Raises UsageError where the file cannot be written.
    """
    if file.is_dir():
        raise UsageError(f"{option} {file} is a folder; give a file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
        if not file.stat().st_size:
            file.unlink()
    except OSError as error:
        raise UsageError(
            f"{option} {file} cannot be written ({error.strerror}); give a file that can"
        ) from None


def cannot_be_written(folder: Path, error: OSError, option: str = "--output-dir") -> str:
    """The sentence about an output folder that cannot be written."""
    return f"{option} {folder} cannot be written ({error.strerror}); give a folder that can"


def _owner(command: str) -> Owner:
    return next(owner for owner in OWNERS if owner.command == command)


def _refuse_unusable(folder: Path, own: Owner, option: str) -> None:
    if own.has_ledger and "?" in str(folder.resolve()):
        raise UsageError(
            f"{option} {folder} has a question mark in its path, where DuckDB ends the name of a"
            " file; give another folder"
        )
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            f"{option} {folder} is no text in UTF-8, as files and ledgers keep names; give another "
            "name, or set PYTHONUTF8=1 where it is one"
        ) from None
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in folder.parts):
        raise UsageError(
            f"{option} has a name of more than {_LONGEST_NAME} bytes, which no file system keeps; "
            "give a shorter one"
        )
    if folder.is_symlink() and not folder.exists():
        raise UsageError(f"{option} {folder} is a link that leads nowhere; give a folder")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option} {folder} is a file; give a folder")
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(
            f"{option} {folder} cannot be written ({there} is a file); give a folder that can"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(
            f"{option} {folder} cannot be written (no right to write into {there}); give a folder"
            " that can"
        )


def _is_marked(folder: Path, owner: Owner) -> bool:
    """Whether the command's own options, or its name, lie in the folder."""
    try:
        text = (folder / owner.options_file).read_text(encoding="utf-8")
        if owner.options_file == MADE_BY:
            return text.strip() == owner.command
        options = json.loads(text)
    except (OSError, ValueError):
        return False
    return isinstance(options, dict) and owner.mark in options


def _has_begun(folder: Path, owner: Owner) -> bool:
    return any(path.name != owner.options_file for path in _found(folder, owner.begun))


def _found(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """What lies in the folder under these names; hidden and empty files are nobody's."""
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        is_empty = path.is_file() and not path.stat().st_size
        if not path.name.startswith(".") and not is_empty:
            yield path
