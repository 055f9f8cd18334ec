"""Words that this project does not use: its former dialect, and sentences that were rewritten.

`docs/glossary.md` says what to write instead.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.pages import pages

ROOMS = ("schemas", "cli", "media", "judges", "pipeline", "train", "sandbox")
SUFFIXES = {".py", ".jinja", ".js", ".css", ".toml", ".md"}

DIALECT = re.compile(
    r"\b(?:told|so many|came? to its end|comes to its end|who is asked|borne|aloud|announce\w*"
    r"|settle[sd]?)\b",
    re.IGNORECASE,
)
NAMES = re.compile(
    r"\b(?:UpdateRule|PackedRow|grouped_forward|answering_with|token_scores|start_check"
    r"|published_rewards)\b"
)
SENTENCES = (
    "the plain index gives CUDA builds",
    "nothing else is to be done",
    "A step is 16 rows, however many processes",
    "every trained token in it weighs alike",
    "with a collator of ours",
    "train on a video's placeholders without a word",
    "A verdict that does not come is missing",
    "training pauses, asks again, and at last stops with a checkpoint",
    "Checkpoints fall where all that was sampled has been learned from",
    "who learns from what",
    "Pieces of a generation: whole groups that are forwarded together",
    "What a group's rewards make of its update",
    "What is borne of a judge that is down",
    "Media that are alone of their kinds",
)
# An occurrence that has to stay: (file, text around it, why).
ALLOWED: tuple[tuple[str, str, str], ...] = (
    ("", 'renamed={"published_rewards"', "the former name of --reward still works"),
    ("", '"start_check": "parity_check"', "the former name of --parity-check still works"),
    ("docs/glossary.md", "| announce, take |", "it says what not to write"),
    ("judges/answer_leaks.py", "announc", "words that give an answer away, in a pattern"),
    ("pipeline/progress.py", '"settled"', "a key of progress.json, which others read"),
    ("pipeline/progress.py", "snapshot['settled']", "the same"),
)


def product_texts(repository: Path) -> Iterator[tuple[str, str]]:
    """Code, templates, prompts and pages, by their path."""
    for room in ROOMS:
        for path in sorted((repository / room).rglob("*")):
            # Prompts are the papers', or what models were trained with.
            if path.suffix in SUFFIXES and "prompts" not in path.parts and path.is_file():
                yield str(path.relative_to(repository)), path.read_text("utf-8")
    for page in pages(repository):
        yield str(page.relative_to(repository)), page.read_text("utf-8")


def offenders(path: str, text: str) -> list[str]:
    """Lines with a word, a name or a sentence that is not to be written."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if any(path.startswith(where) and what in line for where, what, _ in ALLOWED):
            continue
        for match in (*DIALECT.finditer(line), *NAMES.finditer(line)):
            found.append(f"{path}:{number}: {match.group()}: {line.strip()}")
    joined = " ".join(text.replace("#", " ").split())
    found += [f"{path}: {one!r}" for one in SENTENCES if one.lower() in joined.lower()]
    return found


def test_no_word_of_the_former_dialect_is_left(repository: Path) -> None:
    texts = dict(product_texts(repository))
    assert len(texts) > 200
    found = [line for path, text in texts.items() for line in offenders(path, text)]
    assert not found, f"{len(found)} places\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "The user is told.",
        "after so many pauses",
        "as it came to its end",
        "rows.announce",
        "all is settled",
        "class UpdateRule:",
        "config.start_check",
        "Checkpoints fall where all that\n# was sampled has been learned from.",
    ],
)
def test_each_kind_of_offence_is_seen(text: str) -> None:
    assert len(offenders("train/x.py", text)) == 1


@pytest.mark.parametrize("text", ["He untold it.", "resettled", "forenames", "published rewards"])
def test_words_that_only_look_alike_are_left_alone(text: str) -> None:
    assert offenders("train/x.py", text) == []
