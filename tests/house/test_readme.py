"""The commands of README and the guides run as they are printed, in one empty folder."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.builds import environment
from helpers.pages import bash_commands, guides, pages, python_words
from servers.model_server import RunningServer, running_server

pytestmark = pytest.mark.heavy

# Shorter waits, and short replies of a model that knows nothing and never ends one.
_SHORT = {
    "--batch": ["--batch-linger-seconds=0.5", "--batch-poll-seconds=0.3"],
    "--judge local:": ["--judge-max-tokens=8", "--retries=0"],
    "=0.1 local:": ["--judge-max-tokens=8", "--retries=0"],
}
_TRACE = (
    "<observation>Based on the question, I need to notice the object. It is red.</observation> "
    "<think>Based on the observations, it is the first option.</think><answer>A</answer>"
)
_REPLIES = (
    {"contains": "Visual Observation", "reply": _TRACE},
    {"contains": "### Observations", "reply": "It does. <judgement>Yes</judgement>"},
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    replies = tmp_path / "replies.jsonl"
    replies.write_text("".join(json.dumps(rule) + "\n" for rule in _REPLIES))
    with running_server(tmp_path / "requests.jsonl", replies=replies) as running:
        yield running


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_every_command_of_the_readme_and_the_guides_runs(
    repository: Path, server: RunningServer, tmp_path: Path
) -> None:
    """Pages begin with the same world and models: a line that ran is not run again."""
    lines = {page: bash_commands(page.read_text("utf-8")) for page in guides(repository)}
    assert all(lines[page] for page in guides(repository)[:-1])  # many machines: nothing to run
    folder = tmp_path / "user"
    folder.mkdir()
    llama = tmp_path / "tiny-llama"
    here = environment(
        server.url,
        PYTHONPATH=str(repository),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        OMP_NUM_THREADS="1",
    )
    make_llama = ["-m", "sandbox.tiny_model", "--kind", "llama", "--output-dir", str(llama)]
    subprocess.run([sys.executable, *make_llama], env=here, check=True, capture_output=True)
    commands = list(dict.fromkeys(line for page in lines.values() for line in page))
    assert len(commands) >= 20
    for command in commands:
        # A user has what this machine lacks: a server with a vision model, and Llama's weights.
        line = command.replace("http://localhost:8000/v1", server.openai_url)
        line = line.replace("local:meta-llama/Llama-3.1-8B-Instruct", f"local:{llama}")
        words = python_words(line)
        words += [more for mark, extra in _SHORT.items() if mark in line for more in extra]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env=here,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for name in ("claude", "batch", "oracle"):
        (part,) = (folder / "out" / name / "dataset").glob("*.parquet")
        assert pq.read_table(part).num_rows > 0, name


def test_the_readme_is_short_and_shows_a_result(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    assert max(map(len, text.splitlines())) < 260
    first = text.split("\n\n")[1]
    assert len(first.splitlines()) <= 8
    picture = repository / "docs" / "images" / "rollouts.png"
    assert f"]({picture.relative_to(repository)})" in text
    assert picture.stat().st_size < 200_000
    for part in ("make demo", "## Install", "pipeline.build_cot", "train.rl", "can rely on"):
        assert part in text


def test_no_page_shows_a_folder_of_somebodys_machine(repository: Path) -> None:
    for page in pages(repository):
        text = page.read_text(encoding="utf-8")
        assert os.path.expanduser("~") + "/" not in text, page
        assert str(repository) not in text, page
        assert "/tmp/" not in text, page


def test_assistants_have_a_page_of_their_own(repository: Path) -> None:
    text = (repository / "AGENTS.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
