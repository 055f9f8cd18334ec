"""House rules that no linter checks: sizes, no stubs, no broad excepts, nothing unused."""

import ast
import re
import subprocess
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = ("schemas", "cli", "media", "judges", "pipeline", "train", "sandbox")
PLACES = (*ROOMS, "tests", "benchmarks")
MAX_LINES = 500
ALARM_LINES = 350  # reason enough to ask whether a file still has one subject
MIN_LINES = 60  # below, a file is a command, a protocol, a template, a re-export or an __init__
SMALL = {
    "media/encoding.py",  # outside code imports the modules of media by their paths
    "train/rollouts/vllm/gloo.py",  # a trainer has no vLLM, and vLLM's workers no trainer
}
MAX_FILES = 20  # at one level of a room
MAX_BYTES = 512_000  # of a tracked file
LARGE = {"sandbox/models/start/model.safetensors": 3_000_000}  # a model from which demos start
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


def test_no_file_is_longer_than_500_lines(repository: Path) -> None:
    files = python_files(repository)
    assert len(files) > 40
    lengths = {path: len(text.splitlines()) for path, text in files.items()}
    too_long = {path: lines for path, lines in lengths.items() if lines > MAX_LINES}
    assert not too_long, f"split by subject: {too_long}"
    if long := {path: lines for path, lines in lengths.items() if lines > ALARM_LINES}:
        warnings.warn(f"more than {ALARM_LINES} lines, still one subject? {long}", stacklevel=1)


def is_small_by_nature(source: str) -> bool:
    """A command, a protocol, or a module that only passes names on."""
    if '__name__ == "__main__"' in source:
        return True
    body = ast.parse(source).body
    passes_on = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    return all(isinstance(node, passes_on) for node in body) or any(
        isinstance(node, ast.ClassDef) and "Protocol" in [ast.unparse(base) for base in node.bases]
        for node in body
    )


def test_no_file_is_a_sliver(repository: Path) -> None:
    slivers = {
        path: len(text.splitlines())
        for path, text in python_files(repository, ROOMS).items()
        if len(text.splitlines()) < MIN_LINES
        and not path.endswith("__init__.py")
        and path not in SMALL
        and not is_small_by_nature(text)
    }
    assert not slivers, f"fold these into the file of their subject: {slivers}"
    assert is_small_by_nature("from a import b\n\n__all__ = ['b']\n")
    assert is_small_by_nature("class Source(Protocol):\n    ...\n")
    assert not is_small_by_nature("import a\n\ndef f():\n    return a.b()\n")


def test_no_level_of_a_room_has_more_than_20_files(repository: Path) -> None:
    counts = Counter(path.parent for path in tracked_files(repository) if path.parts[0] in ROOMS)
    crowded = {str(folder): count for folder, count in counts.items() if count > MAX_FILES}
    assert counts
    assert not crowded, f"give these inner walls: {crowded}"


def test_no_tracked_file_is_large_or_a_wheel(repository: Path) -> None:
    files = tracked_files(repository)
    assert len(files) > 400
    large = {
        str(path): size
        for path in files
        if (size := (repository / path).lstat().st_size) > LARGE.get(str(path), MAX_BYTES)
    }
    assert not large, f"not for a repository: {large}"
    assert not [path for path in files if path.suffix in {".whl", ".so", ".pyc"}]
    links = [str(path) for path in files if (repository / path).is_symlink()]
    assert not links, f"archives and some file systems make text files of links: {links}"


def test_every_package_is_part_of_the_installation(repository: Path) -> None:
    """A wheel has the packages that pyproject.toml lists, and no other."""
    with (repository / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    found = [
        ".".join(path.parent.parts)
        for path in tracked_files(repository)
        if path.name == "__init__.py" and path.parts[0] in ROOMS
    ]
    assert sorted(found) == listed


def tracked_files(repository: Path) -> list[Path]:
    """Files that git tracks and that are there, from the repository's root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:  # a copy of the tree without git, as mutations run in
        return [p.relative_to(repository) for p in repository.rglob("*") if p.is_file()]
    names = [Path(name) for name in listed.stdout.split("\0") if name]
    places = {name: repository / name for name in names}
    return [name for name, place in places.items() if place.is_file() or place.is_symlink()]


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
    "pipeline/export.py",
    "pipeline/notebook.py",
    "train/notebook.py",
    "train/advantages.py",
    "train/appo.py",
    "train/algorithms/advantages.py",
    "train/algorithms/registry.py",
    "train/algorithms/appo.py",
    "train/integrations/rows.py",
    "train/integrations/swift_rewards.py",
    "train/integrations/trl_rewards.py",
    "train/integrations/verl_plugin.py",
    "train/modeling/packed_forward.py",
    "train/rewards/segment_rewards.py",
    "train/rollouts/segments.py",
    "judges/statistics/agreement.py",
    "judges/statistics/prevalence.py",
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
                # a command that imports its subcommands by name, as `module` or `module:name`
                names = [node.value.partition(":")[0]]
            else:
                continue
            own = path.removesuffix(".py").replace("/", ".")
            used |= {name for name in names if name != own}
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    for group in (project.get("scripts", {}), *project.get("entry-points", {}).values()):
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
