"""Each command explains itself at once, and names every option."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.options import BuildConfig

ROOMS = ("pipeline", "judges", "train", "sandbox")
HELP_SECONDS = 2.0  # of processor time: the wall clock of a busy machine says nothing about us

pytestmark = pytest.mark.heavy


def _commands(repository: Path) -> list[str]:
    return sorted(
        str(path.relative_to(repository)).removesuffix(".py").replace("/", ".")
        for room in ROOMS
        for path in (repository / room).rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    )


def _help(*command: str) -> str:
    """What `--help` prints, within its time."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"], capture_output=True, text=True, check=False
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    seconds = after.children_user - before.children_user
    seconds += after.children_system - before.children_system
    assert seconds < HELP_SECONDS, f"{command} --help took {seconds:.1f} s of processor time"
    return done.stdout


def _told(text: str) -> dict[str, str]:
    """The meaning of each option in a `--help`, without its default."""
    entries = re.findall(r"^  (--\S+)(.*(?:\n {3,}.*)*)", text, re.MULTILINE)
    # Two blanks or a new line end the flags; `(default: ...)` and `(required)` end the meaning.
    return {
        flag: re.split(r"\((?:default:|required)", re.split(r" {2,}|\n", rest, maxsplit=1)[-1])[
            0
        ].strip()
        for flag, rest in entries
    }


def test_an_option_without_a_meaning_is_seen() -> None:
    text = (
        "options:\n"
        "  --questions FILE              Question file. (required)\n"
        "  --follow-symlinks, --no-follow-symlinks\n"
        "                                Follow links. (default: off)\n"
        "  --untold N                    (default: 1)\n"
        "  --bare\n"
    )
    assert _told(text) == {
        "--questions": "Question file.",
        "--follow-symlinks,": "Follow links.",
        "--untold": "",
        "--bare": "",
    }


def test_help_of_every_command_answers_in_time_and_is_complete(repository: Path) -> None:
    commands = _commands(repository)
    assert {"pipeline.build_cot", "pipeline.status", "sandbox.clips", "sandbox.demo"} <= {*commands}
    for command in commands:
        texts = {command: _help(command)}
        if "SUBCOMMAND" in texts[command]:
            subcommands = re.findall(r"^  (\w+)  ", texts.pop(command), re.MULTILINE)
            assert len(subcommands) >= 2, command
            texts = {f"{command} {name}": _help(command, name) for name in subcommands}
        for name, text in texts.items():
            told = _told(text)
            assert len(told) >= 2, name
            assert not [flag for flag, meaning in told.items() if not meaning], name


def test_build_cot_has_the_options_that_others_rely_on() -> None:
    relied_on = "questions media_root format strip_prefix follow_symlinks generator judge attempts"
    relied_on += " output_dir check dry_run max_cost_usd limit concurrency batch export api_key_env"
    assert set(relied_on.split()) <= set(BuildConfig.model_fields)
