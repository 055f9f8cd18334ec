"""The project's pages, and what stands in them: code blocks, commands, options, links, anchors."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

FRONT_PAGES = ("README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md")
GUIDES = ("build", "your_data", "audit", "fine_tune", "reinforce", "evaluate", "many_machines")

_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Behind `python`, a path to it, `accelerate launch`, or in running text.
_COMMAND = re.compile(
    r"-m ((?:pipeline|judges|train|sandbox)\.\w+)"
    r"((?: (?:sample|label|run|report|gate)\b)?)"
    r"((?:[^\n`|]|\\\n)*)"
)
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


class ShownCommand(NamedTuple):
    """A command of ours as a page shows it."""

    words: tuple[str, ...]
    """Module, and its subcommand if it has any."""
    flags: frozenset[str]


def pages(repository: Path) -> list[Path]:
    """All pages, with those at the front door first."""
    front = [repository / name for name in FRONT_PAGES]
    return [*front, *sorted((repository / "docs").rglob("*.md"))]


def guides(repository: Path) -> list[Path]:
    """README and the guides, whose bash blocks run in one folder."""
    return [repository / "README.md"] + [
        repository / "docs" / "guides" / f"{name}.md" for name in GUIDES
    ]


def blocks(text: str, language: str) -> list[str]:
    """The contents of all code blocks in a language."""
    return [content for name, content in _BLOCK.findall(text) if name == language]


def bash_commands(text: str) -> list[str]:
    """The command lines of all bash blocks, in order."""
    return [
        line
        for block in blocks(text, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]


def shown_commands(text: str) -> list[ShownCommand]:
    """Every `-m COMMAND --option ...`, wherever it stands in a page."""
    return [
        ShownCommand((module, *subcommand.split()), frozenset(_FLAG.findall(rest)))
        for module, subcommand, rest in _COMMAND.findall(text.replace("\\\n", " "))
    ]


def prose(text: str) -> str:
    """A page without its code blocks."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    """Targets of all links and pictures of a page."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    return {_slug(heading) for heading in _HEADING.findall(prose(text))}


def _slug(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def python_words(command: str) -> list[str]:
    """`python -m MODULE ...` as words behind the interpreter."""
    words = shlex.split(command)
    if words[:2] != ["python", "-m"]:
        raise ValueError(f"expected `python -m MODULE ...`, got {command!r}")
    return words[1:]
