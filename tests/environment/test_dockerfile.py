"""The Dockerfile, without docker: its instructions are read, its shell runs with a stub of pip."""

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

INSTRUCTIONS = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD"}


def instructions(repository: Path) -> list[tuple[str, str]]:
    """Each instruction with its words; lines that end in a backslash go on."""
    text = (repository / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parts = [line.partition(" ") for line in joined.splitlines()]
    return [(name, rest.strip()) for name, _, rest in parts]


def arguments(repository: Path) -> dict[str, str]:
    found = [rest.split("=", 1) for name, rest in instructions(repository) if name == "ARG"]
    return dict(found)


@pytest.fixture
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))


def test_every_line_is_an_instruction_and_the_first_stage_is_named_first(repository: Path) -> None:
    names = [name for name, _ in instructions(repository)]
    assert set(names) == INSTRUCTIONS
    assert names.index("FROM") == 1  # behind the argument that it reads
    assert names.count("FROM") == 1


def test_all_that_is_installed_is_copied_and_sent_to_docker(
    repository: Path, project: dict[str, Any]
) -> None:
    copied = [
        word
        for name, rest in instructions(repository)
        if name == "COPY"
        for word in rest.split()[:-1]
    ]
    assert all((repository / name).exists() for name in copied)
    rooms = {package.split(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    assert rooms <= {*copied}
    ignored = (repository / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line[0] == "!"}
    assert sent == {*copied}


def test_the_extras_are_those_of_the_project_and_the_script_is_the_entrypoint(
    repository: Path, project: dict[str, Any]
) -> None:
    extras = arguments(repository)["EXTRAS"].split(",")
    assert {*extras} <= {*project["project"]["optional-dependencies"]}
    least = project["project"]["requires-python"].removeprefix(">=")
    assert tuple(map(int, arguments(repository)["PYTHON"].split("."))) >= tuple(
        map(int, least.split("."))
    )
    (entry,) = [rest for name, rest in instructions(repository) if name == "ENTRYPOINT"]
    assert entry == f'["{next(iter(project["project"]["scripts"]))}"]'


@pytest.mark.parametrize(
    ("torch", "status", "first"),
    [
        ("cpu", 0, "install -c constraints.txt torch torchvision --index-url https://download."),
        ("cuda", 0, "install -c constraints.txt .[claude,train]"),
        ("rocm", 2, ""),
    ],
)
def test_the_variants_install_what_they_say(
    torch: str, status: int, first: str, repository: Path, tmp_path: Path
) -> None:
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    pip.chmod(0o755)
    (tmp_path / "asked").touch()
    script = "\n".join(rest for name, rest in instructions(repository) if name == "RUN")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH": torch, "EXTRAS": "claude,train"}
    done = subprocess.run(
        ["sh", "-e", "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert (asked or [""])[0].startswith(first)
    if not status:
        assert asked[-1] == "install -c constraints.txt .[claude,train]"
    else:
        assert "TORCH is cpu or cuda, not rocm" in done.stderr
