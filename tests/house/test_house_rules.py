"""House rules that no linter checks: file length, no stubs, no broad excepts, nothing unused."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = ("schemas", "media", "judges", "pipeline", "train", "sandbox")
PLACES = (*ROOMS, "tests", "benchmarks")
MAX_LINES = 350
UNFINISHED = re.compile(r"\bTO[D]O\b|\bFIX[M]E\b|\braise NotImplemented[E]rror\b")
BROAD = {"Exception", "BaseException"}


def python_files(repository: Path, places: tuple[str, ...] = PLACES) -> dict[str, str]:
    return {
        str(path.relative_to(repository)): path.read_text("utf-8")
        for place in places
        for path in sorted((repository / place).rglob("*.py"))
    }


def broad_excepts(source: str) -> list[int]:
    """Lines with `except:`, `except Exception`, or `suppress(Exception)` that swallow the error.

    A handler that tidies up and ends in a bare `raise` hides nothing and may name BaseException.
    """

    def names(node: ast.expr | None) -> Iterator[str]:
        if node is None:
            yield "BaseException"
        elif isinstance(node, ast.Tuple):
            for element in node.elts:
                yield from names(element)
        else:
            yield ast.unparse(node).removeprefix("builtins.")

    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            is_passed_on = isinstance(last, ast.Raise) and last.exc is None
            caught = set() if is_passed_on and node.type else set(names(node.type))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = {name for argument in node.args for name in names(argument)}
        else:
            continue
        if caught & BROAD:
            lines.append(node.lineno)
    return lines


def test_no_file_is_longer_than_350_lines(repository: Path) -> None:
    files = python_files(repository)
    assert len(files) > 40
    lengths = {path: len(text.splitlines()) for path, text in files.items()}
    too_long = {path: lines for path, lines in lengths.items() if lines > MAX_LINES}
    assert not too_long, f"split by subject: {too_long}"


def test_nothing_is_left_unfinished(repository: Path) -> None:
    marks = [
        f"{path}:{number}: {line.strip()}"
        for path, text in python_files(repository).items()
        for number, line in enumerate(text.splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not marks, "\n".join(marks)
    for mark in ("# TO" + "DO: later", "raise NotImplemented" + "Error(name)"):
        assert UNFINISHED.search(mark)


def test_every_except_names_the_error_it_expects(repository: Path) -> None:
    found = [
        f"{path}:{line}"
        for path, text in python_files(repository).items()
        for line in broad_excepts(text)
    ]
    assert not found, f"name the errors: {found}"


@pytest.mark.parametrize(
    ("handler", "is_broad"),
    [
        ("except:", True),
        ("except Exception:", True),
        ("except BaseException as error:", True),
        ("except (ValueError, Exception):", True),
        ("except builtins.Exception:", True),
        ("except ValueError:", False),
        ("except (OSError, asyncio.TimeoutError) as error:", False),
    ],
)
def test_the_except_test_sees_every_spelling(handler: str, is_broad: bool) -> None:
    assert broad_excepts(f"try:\n    pass\n{handler}\n    pass") == ([3] if is_broad else [])
    assert broad_excepts("try:\n    f()\nexcept BaseException:\n    tidy()\n    raise") == []
    assert broad_excepts("try:\n    f()\nexcept Exception:\n    raise ValueError") == [3]
    assert broad_excepts("with contextlib.suppress(Exception):\n    pass") == [1]
    assert broad_excepts("with suppress(FileNotFoundError):\n    pass") == []


# Functions that people import into trainers, experiments and notebooks of their own.
LIBRARY = {
    "train/advantages.py",
    "train/algorithms.py",
    "train/appo.py",
    "train/grouped_forward.py",
    "train/rewards.py",
    "train/segments.py",
    "judges/agreement.py",
    "judges/prevalence.py",
}


def test_every_module_is_used_by_another_one_or_is_a_command(repository: Path) -> None:
    """A module that only its own test imports is a leftover."""
    files = python_files(repository, (*ROOMS, "benchmarks"))
    used = set()
    for path, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names = [node.value]  # a command that imports its subcommands by name
            else:
                continue
            own = path.removesuffix(".py").replace("/", ".")
            used |= {name for name in names if name != own}
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    for group in project.get("entry-points", {}).values():
        used |= {target.partition(":")[0] for target in group.values()}
    unused = [
        path
        for path, text in files.items()
        if not path.endswith("__init__.py")
        and path not in LIBRARY
        and not path.startswith("benchmarks/")
        and '__name__ == "__main__"' not in text
        and path.removesuffix(".py").replace("/", ".") not in used
    ]
    assert not unused, f"nothing imports these: {unused}"


def test_every_data_file_in_a_room_is_named_by_its_code(repository: Path) -> None:
    """Prompts, price tables and templates: the code names each by its file name or its stem.

    A template may also be named by one that extends it, in whatever room.
    """
    unnamed = []
    templates = [path for room in ROOMS for path in (repository / room).rglob("*.jinja")]
    extended = [
        line
        for path in templates
        for line in path.read_text("utf-8").splitlines()
        if line.startswith("{% extends ")
    ]
    for room in ROOMS:
        code = "\n".join([*python_files(repository, (room,)).values(), *extended])
        for path in sorted((repository / room).rglob("*")):
            is_data = path.is_file() and path.suffix not in {".py", ".pyc"}
            named = re.search(
                rf"[\"'/]{re.escape(path.stem)}(?:{re.escape(path.suffix)})?[\"']", code
            )
            if is_data and not named:
                unnamed.append(str(path.relative_to(repository)))
    assert not unnamed, f"no code names these: {unnamed}"
