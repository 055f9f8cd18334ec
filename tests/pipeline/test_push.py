"""Datasets to the Hub: rows and card alone, the media only where they were asked for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.hard_places import environment
from helpers.training_world import small_world
from servers.hub_server import Hub, running_hub

from cli.config import UsageError
from pipeline.push import PushConfig, _files, card_without_pictures

CARD = """---
license: other
---

# Traces

Video questions with traces.

Beside `dataset/`, for other readers; a format holds what it can express:

| folder | for |
|---|---|
| `trl/` | TRL |

## Rows to look at

![Frames of a.mp4](pictures/row-1.png)

| row 1 | What? |
|---|---|
| correct | B |

The pictures are frames of the media, which are not part of the dataset otherwise: remove them
before publishing where a licence asks for it.

## From questions to rows
"""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """The folder of a finished build, with all that is not for others."""
    out = tmp_path / "build"
    root, dataset = small_world(tmp_path / "world")
    (out / "dataset").mkdir(parents=True)
    for path in dataset.rglob("*.parquet"):
        (out / "dataset" / path.name).write_bytes(path.read_bytes())
    (out / "README.md").write_text(CARD, "utf-8")
    (out / "config.json").write_text(json.dumps({"media_root": str(root)}), "utf-8")
    for name in (
        "cot.duckdb",
        "progress.json",
        "index.html",
        "browse/1.html",
        "pictures/row-1.png",
    ):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("secret", "utf-8")
    return out


def push(*words: str | Path, hub: Hub) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.push", *map(str, words)]
    env = environment() | hub.environment
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def listed(text: str) -> set[str]:
    return set(re.findall(r"^ *[\d,]+  (?!in )(\S+)$", text, re.MULTILINE))


@pytest.mark.heavy
@pytest.mark.parametrize("media", [(), ("--with-media",)])
def test_exactly_what_was_listed_is_sent(build: Path, media: tuple[str, ...]) -> None:
    with running_hub() as hub:
        first = push(build, "me/traces", *media, hub=hub)
        assert (first.returncode, hub.requests) == (0, []), first.stderr
        sent = push(build, "me/traces", *media, "--upload", hub=hub)
        assert sent.returncode == 0, sent.stderr
        files = hub.repositories["dataset/me/traces"]
    assert set(files) == listed(first.stdout)
    kinds = {name.partition("/")[0] for name in files}
    assert kinds == ({"README.md", "dataset", "media", "pictures"} if media else
                     {"README.md", "dataset"})  # fmt: skip
    card = files["README.md"].decode()
    assert ("](pictures/" in card) is bool(media)


def test_the_card_speaks_of_no_picture_and_no_format_that_stays_here() -> None:
    text = card_without_pictures(CARD)
    assert "pictures" not in text
    assert "trl/" not in text
    for kept in ("# Traces", "## Rows to look at", "| correct | B |", "## From questions to rows"):
        assert kept in text


def test_media_outside_of_the_media_folder_are_refused(build: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = PushConfig(out=build, repo="me/m", with_media=True, media_root=tmp_path / "empty")
    with pytest.raises(UsageError, match="is no file under"):
        list(_files(config))


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no dataset with its card"):
        list(_files(PushConfig(out=tmp_path, repo="me/m")))
