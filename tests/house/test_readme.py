"""The README's commands run as they are printed, in an empty folder."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.builds import environment
from servers.model_server import RunningServer, running_server

pytestmark = pytest.mark.process

_BASH = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Shorter waits, and short replies of a model that knows nothing and never ends one.
_SHORT = {
    "--batch": ["--batch-linger-seconds=0.5", "--batch-poll-seconds=0.3"],
    "--judge local:": ["--judge-max-tokens=8", "--judge-retries=0"],
    "judges.audit run": ["--max-tokens=8", "--retries=0"],
}
_OTHER = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"-m ((?:pipeline|judges|train|sandbox)\.[\w.]+)"  # behind `python` or `accelerate launch`
    r"((?: (?:sample|label|run|report|gate)\b)?)"
    r"(.*(?:\\\n.*)*)"
)
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_TRACE = (
    "<observation>Based on the question, I need to notice the object. It is red.</observation> "
    "<think>Based on the observations, it is the first option.</think><answer>A</answer>"
)
_REPLIES = (
    {"contains": "Visual Observation", "reply": _TRACE},
    {"contains": "### Observations", "reply": "It does. <judgement>Yes</judgement>"},
)


def bash_commands(text: str) -> list[str]:
    """The command lines of all bash blocks, in order."""
    return [
        line
        for block in _BASH.findall(text)
        for line in block.splitlines()
        if line.strip() and not line.startswith("#")
    ]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    replies = tmp_path / "replies.jsonl"
    replies.write_text("".join(json.dumps(rule) + "\n" for rule in _REPLIES))
    with running_server(tmp_path / "requests.jsonl", replies=replies) as running:
        yield running


@pytest.mark.timeout(600)
def test_every_command_of_the_readme_runs(
    repository: Path, server: RunningServer, tmp_path: Path
) -> None:
    commands = bash_commands((repository / "README.md").read_text(encoding="utf-8"))
    assert len(commands) >= 7
    folder = tmp_path / "user"
    folder.mkdir()
    llama = tmp_path / "tiny-llama"
    here = environment(server.url, XDG_CACHE_HOME=str(tmp_path / "cache"), OMP_NUM_THREADS="1")
    make_llama = ["-m", "sandbox.tiny_model", "--kind", "llama", "--output-dir", str(llama)]
    subprocess.run([sys.executable, *make_llama], env=here, check=True, capture_output=True)
    for command in commands:
        # A user has what this machine lacks: a server with a vision model, and Llama's weights.
        line = command.replace("http://localhost:8000/v1", server.openai_url)
        line = line.replace("local:meta-llama/Llama-3.1-8B-Instruct", f"local:{llama}")
        words = shlex.split(line)
        assert words[:2] == ["python", "-m"], command
        words += [more for mark, extra in _SHORT.items() if mark in line for more in extra]
        done = subprocess.run(
            [sys.executable, *words[1:]],
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
    assert "Two commands" in (repository / "README.md").read_text(encoding="utf-8")


def test_commands_that_only_people_can_run_name_options_that_there_are(repository: Path) -> None:
    """Those in other blocks want a GPU, a server or a hand; that they are not run lets none rot."""
    text = (repository / "README.md").read_text(encoding="utf-8")
    shown = _COMMAND.findall("".join(_OTHER.findall(text)))
    assert len(shown) >= 4
    for module, subcommand, rest in shown:
        words = [module, *subcommand.split()]
        unknown = {*_FLAG.findall(rest)} - _flags(*words, "--help")
        if unknown and module.startswith("train."):
            unknown -= _flags(*words, "--help-all")
        assert not unknown, f"{' '.join(words)}: {unknown}"


@cache
def _flags(*command: str) -> set[str]:
    told = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert told.returncode == 0, f"{command}: {told.stderr}"
    return {*_FLAG.findall(told.stdout)}


def test_the_readme_shows_no_folder_of_somebodys_machine(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert os.path.expanduser("~") not in text
    assert str(repository) not in text
