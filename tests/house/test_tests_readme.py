"""`tests/README.md` names every helper, fixture, server module and reference implementation."""

import ast
import re
from pathlib import Path

from helpers.folders import TESTS


def fixtures(path: Path) -> set[str]:
    """Functions of a conftest that are decorated as fixtures."""
    functions = [
        node
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        one.name
        for one in functions
        if any("fixture" in ast.unparse(mark) for mark in one.decorator_list)
    }


def first_cells(text: str) -> list[str]:
    """What stands in backticks in the first cell of each row of a table."""
    cells = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_helper_and_fixture_has_its_line() -> None:
    files = [*(TESTS / "helpers").glob("*.py"), *(TESTS / "servers").glob("*.py")]
    modules = {path.stem for path in files if not path.stem.startswith("test_")}
    modules |= {path.name for path in (TESTS / "reference").glob("*.py")}
    made = {name for path in TESTS.rglob("conftest.py") for name in fixtures(path)}
    assert len(modules) > 40
    assert len(made) > 6
    named = first_cells((TESTS / "README.md").read_text("utf-8"))
    assert not (missing := (modules | made) - set(named)), f"tests/README.md lacks {missing}"
    gone = {name for name in named if re.fullmatch(r"\w+(\.py)?", name)} - modules - made
    assert gone == {"heavy", "slow", "campaign", "data"}, (
        f"tests/README.md names what is not there: {gone}"
    )
