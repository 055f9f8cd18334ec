"""Links between pages lead somewhere, anchors included, and the paper index names what exists."""

import ast
import re
from pathlib import Path

import pytest
from helpers.pages import anchors, links, pages

_ROW = re.compile(
    r"^\| .+? \| .+? \| `([\w.]+)` \| `(tests/[\w/.]+)(?:::(\w+))?` \|$", re.MULTILINE
)


def broken_links(page: Path, text: str) -> list[str]:
    """Targets that are no file, or no heading of the page that they lead to."""
    broken = []
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        is_there = file.exists()
        if is_there and anchor:
            is_there = anchor in anchors(text if file == page else file.read_text("utf-8"))
        if not is_there:
            broken.append(target)
    return broken


def test_every_link_leads_somewhere(repository: Path) -> None:
    found = pages(repository)
    assert len(found) > 25
    faults = [
        f"{page.relative_to(repository)}: {target}"
        for page in found
        for target in broken_links(page, page.read_text("utf-8"))
    ]
    assert not faults, "\n".join(faults)


def test_broken_links_are_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A Title: it's `code`\n\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    text = (
        "[a](there.md) [b](there.md#a-title-its-code) [c](gone.md) [d](there.md#no-heading)"
        " [e](#mine) [f](https://example.org/x#y)\n\n## Mine\n"
    )
    page.write_text(text)
    assert broken_links(page, text) == ["gone.md", "there.md#no-heading"]


def test_every_page_is_reached_from_the_index(repository: Path) -> None:
    """The table of contents names each page once; decisions are taken by a pattern."""
    docs = repository / "docs"
    listed = set()
    for index in (docs / "index.md", docs / "api" / "index.md"):
        toctrees = re.findall(r"```\{toctree\}\n(.*?)```", index.read_text("utf-8"), re.DOTALL)
        names = [line for tree in toctrees for line in tree.splitlines() if line[:1].isalpha()]
        assert len(names) == len(set(names))
        listed |= {(index.parent / name).relative_to(docs).as_posix() for name in names}
    there = {
        page.relative_to(docs).with_suffix("").as_posix()
        for page in docs.rglob("*.md")
        if page.parent.name != "decisions"
    }
    assert there - {"index"} == listed - {"decisions/*"}


def _defines(repository: Path, dotted: str) -> bool:
    """Whether `package.module`, or `package.module.Name`, is there; nothing is imported."""
    module = repository / (dotted.replace(".", "/") + ".py")
    if module.is_file():
        return True
    owner, _, name = dotted.rpartition(".")
    file = repository / (owner.replace(".", "/") + ".py")
    if not file.is_file():
        return False
    names = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            names.add(ast.unparse(node.target))
    return name in names


def test_each_row_of_the_paper_index_names_a_function_and_a_test(repository: Path) -> None:
    text = (repository / "docs" / "paper_index.md").read_text("utf-8")
    rows = _ROW.findall(text)
    # Three lines of the table's frame apart, each row is one of these.
    table_rows = [line for line in text.splitlines() if line.startswith("| ")]
    num_headers = text.count("\n|---")
    assert len(rows) == len(table_rows) - num_headers
    assert len(rows) >= 25
    for function, file, test in rows:
        assert _defines(repository, function), function
        source = (repository / file).read_text("utf-8")
        assert not test or re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), test


@pytest.mark.parametrize(
    ("dotted", "is_there"),
    [
        ("train.algorithms.appo", True),
        ("train.algorithms.appo.select_frames", True),
        ("train.algorithms.appo.no_such_function", False),
        ("train.no_such_module.select_frames", False),
    ],
)
def test_a_name_that_is_gone_is_seen(repository: Path, dotted: str, is_there: bool) -> None:
    assert _defines(repository, dotted) is is_there


_MENTIONED = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|yaml|jsonl))`")
# Written by commands, or of the reader's own.
MADE = re.compile(
    r"^(?:out/|OUT/|questions\.jsonl$|metrics\.jsonl$|answers\.jsonl$|tables\.md$|report\.md$|my_|"
    r"rollouts/|prompt\.md$|cot/|learning/|step-|.*\bREADME\.md$)"
)


def test_files_that_pages_mention_are_there(repository: Path) -> None:
    """Sources and tests are found by their path or, where a page is short, by their name."""
    names = {
        path.name
        for folder in ("schemas", "cli", "media", "judges", "pipeline", "train", "sandbox", "tests")
        for path in (repository / folder).rglob("*")
    } | {path.name for path in (repository / "benchmarks").iterdir()}
    gone = [
        f"{page.relative_to(repository)}: {mentioned}"
        for page in pages(repository)
        if page.name != "log.md"
        for mentioned in _MENTIONED.findall(page.read_text("utf-8"))
        if not MADE.match(mentioned)
        and not (repository / mentioned).exists()
        and ("/" in mentioned or mentioned not in names)
    ]
    assert not gone, "\n".join(gone)
