"""Imports run one way, heavy dependencies have one door per room, and light modules stay light."""

import ast
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ALLOWED = {
    "schemas": {"schemas"},
    "cli": {"cli", "schemas"},
    "media": {"media", "schemas"},
    "judges": {"judges", "cli", "schemas", "media"},
    "pipeline": {"pipeline", "cli", "schemas", "media", "judges"},
    "train": {"train", "cli", "schemas", "media", "judges"},
    "sandbox": {"sandbox", "cli", "schemas", "media", "judges", "pipeline", "train"},
}
OURS = {*ALLOWED, "tests", "benchmarks"}

# One importing file per room. torch is everywhere in a trainer, so it is not counted in `train`.
HEAVY = {
    "accelerate",
    "anthropic",
    "av",
    "datasets",
    "decord",
    "duckdb",
    "jiwer",
    "matplotlib",
    "openai",
    "peft",
    "pyarrow",
    "rouge_score",
    "torch",
    "transformers",
    "trl",
}
COUNTED_ELSEWHERE = {("train", "torch"), ("sandbox", "torch")}

# Modules that others import freely, besides all commands and packages: none may load what is heavy.
LIGHT = {
    "cli.config",
    "schemas.serialization",
    "schemas.prompting",
    "schemas.questions",
    "schemas.runs",
    "schemas.samples",
    "schemas.traces",
    "media.sampling",
    "judges.scoring.answer_score",
    "judges.answer_leaks",
    "judges.sufficiency",
    "judges.backends.base",
    "judges.backends.registry",
}


# Inside a room, from the ground up: a package imports from its own line and from those above it in
# this list, and packages of one line do not know each other. A room that is not listed has no
# packages of its own.
FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "schemas": (("schemas", "schemas.prompts"), ("schemas.annotations",), ("schemas.ledger",)),
    "judges": (
        ("judges.backends.model_files",),
        ("judges.scoring", "judges.statistics", "judges.backends", "judges.prompts"),
        ("judges.backends.wire",),
        ("judges",),
        ("judges.audits",),
        ("judges.audits.sample", "judges.audits.label"),
        ("judges.audits.run",),
        ("judges.audits.report",),
    ),
    "pipeline": (("pipeline.exports",), ("pipeline",), ("pipeline.browsing", "pipeline.push")),
    "train": (
        ("train.modeling", "train.recipes"),
        ("train.data", "train.rollouts"),
        ("train.rollouts.vllm",),
        ("train.rewards",),
        ("train.algorithms",),
        ("train.trainers",),
        ("train.monitoring", "train.evaluation", "train.planning", "train.integrations"),
        ("train.evaluation.answering",),
        ("train",),
    ),
    "sandbox": (
        ("sandbox.world",),
        ("sandbox.teacher",),
        ("sandbox.models",),
        ("sandbox.lessons",),
        ("sandbox",),
    ),
}
# Doors stand on top of their room, whatever floor their package is on.
DOORS = {
    "judges.audit",
    "judges.audits.gate",
    "judges.backends.claude",
    "judges.backends.openai_compatible",
    "pipeline.browse",
}


class Import(NamedTuple):
    module: str
    line: int
    is_for_types: bool


def product_files(repository: Path) -> list[Path]:
    return [
        path.relative_to(repository)
        for room in ALLOWED
        for path in sorted((repository / room).rglob("*.py"))
    ]


def imports_of(tree: ast.AST) -> Iterator[Import]:
    """All imports of a file, those in functions included; a relative one is named as `.`."""
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield Import(module, node.lineno, id(node) in for_types)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(argument.value, node.lineno, False)


def direction_faults(room: str, source: str) -> list[str]:
    faults = []
    for found in imports_of(ast.parse(source)):
        root = found.module.split(".")[0]
        if found.module.startswith("."):
            faults.append(f"line {found.line}: relative import; write the package's name")
        elif root in OURS and root not in ALLOWED[room]:
            faults.append(f"line {found.line}: {room} must not import {found.module}")
    return faults


def floor_faults(files: dict[str, str]) -> list[str]:
    """`files`: path to source. Imports between packages of one room that do not run downward."""
    modules = {path.removesuffix(".py").replace("/", "."): path for path in files}
    faults = []
    for module, path in modules.items():
        own = _floor(module)
        for target, line in _imported_modules(files[path], modules):
            other = _floor(target)
            is_inside = own and other and target.split(".")[0] == module.split(".")[0]
            same_package = module.rpartition(".")[0] == target.rpartition(".")[0]
            if not is_inside or (same_package and target not in DOORS):
                continue
            if target in DOORS or (module not in DOORS and other >= own):
                faults.append(f"{path}, line {line}: {module} must not import {target}")
    return faults


def _floor(module: str) -> int:
    """Counted from 1; 0 for a module of a room without floors, or of a package that has none."""
    floors = FLOORS.get(module.split(".")[0], ())
    package = module.removesuffix(".__init__") if module.endswith(".__init__") else ""
    package = package or module.rpartition(".")[0]
    return next((number for number, line in enumerate(floors, 1) if package in line), 0)


def _imported_modules(source: str, modules: Collection[str]) -> Iterator[tuple[str, int]]:
    """Modules among `modules` that a file imports, `from package import module` included."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name in modules:
                yield name, node.lineno


def import_circles(files: dict[str, str]) -> list[str]:
    """`files`: path to source. Modules that import each other, directly or round about."""
    modules = {path.removesuffix(".py").replace("/", "."): path for path in files}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for module, path in modules.items():
        sorter.add(
            module, *{name for name, _ in _imported_modules(files[path], modules)} - {module}
        )
    try:
        sorter.prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def door_faults(files: dict[str, str]) -> list[str]:
    """`files`: path to source. A heavy dependency may be imported by one file of a room."""
    doors: dict[tuple[str, str], set[str]] = {}
    for path, source in files.items():
        for found in imports_of(ast.parse(source)):
            root = found.module.split(".")[0]
            if root in HEAVY and not found.is_for_types:
                doors.setdefault((path.split("/")[0], root), set()).add(path)
    return [
        f"{dependency} is imported by {len(paths)} files of {room}: {', '.join(sorted(paths))}"
        for (room, dependency), paths in sorted(doors.items())
        if len(paths) > 1 and (room, dependency) not in COUNTED_ELSEWHERE
    ]


def test_imports_run_one_way(repository: Path) -> None:
    files = product_files(repository)
    assert len(files) > 20
    faults = [
        f"{path}, {fault}"
        for path in files
        for fault in direction_faults(path.parts[0], (repository / path).read_text("utf-8"))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("schemas", "import media.frames"),
        ("schemas", "from judges.scoring.answer_score import score_answer"),
        ("media", "def load():\n    from judges import answers"),
        ("judges", "if TYPE_CHECKING:\n    from pipeline.steps import Verified"),
        ("pipeline", "import train"),
        ("train", "from pipeline import export"),
        ("judges", "import_module('sandbox.oracle')"),
        ("pipeline", "from sandbox import clips"),
        ("sandbox", "from tests import conftest"),
        ("media", "from . import sampling"),
    ],
)
def test_the_direction_test_sees_every_kind_of_import(room: str, source: str) -> None:
    assert len(direction_faults(room, source)) == 1
    assert direction_faults(room, "import schemas.serialization\nimport json") == []


def test_imports_run_one_way_inside_rooms_too(repository: Path) -> None:
    files = {
        str(path): (repository / path).read_text("utf-8") for path in product_files(repository)
    }
    assert not (faults := floor_faults(files)), "\n".join(faults)
    assert not (circles := import_circles(files)), circles
    packages = {str(Path(path).parent).replace("/", ".") for path in files}
    listed = {package for floors in FLOORS.values() for line in floors for package in line}
    unlisted = {package for package in packages if package.split(".")[0] in FLOORS} - listed
    assert not unlisted, f"say on which floor these stand: {sorted(unlisted)}"


@pytest.mark.parametrize(
    ("path", "source", "count"),
    [
        ("train/modeling/a.py", "from train.data.b import c", 1),
        ("train/data/a.py", "def f():\n    from train.rollouts import b", 1),
        ("train/rollouts/a.py", "import train.rl", 1),
        ("judges/a.py", "from judges import audit", 1),
        ("judges/audit.py", "from judges.audits.report.b import c", 0),
        ("train/rl_checks.py", "from train.rl import c", 0),
        ("train/trainers/a.py", "from train.modeling.b import c", 0),
    ],
)
def test_the_floor_test_sees_upward_and_sideways_imports(
    path: str, source: str, count: int
) -> None:
    files = dict.fromkeys(("train/data/b.py", "train/rollouts/b.py", "train/rl.py"), "")
    files |= dict.fromkeys(("judges/audit.py", "judges/audits/report/b.py"), "")
    assert len(floor_faults(files | {"train/modeling/b.py": "", path: source})) == count


def test_the_circle_test_sees_a_way_round() -> None:
    files = {"a/b.py": "import a.c", "a/c.py": "def f():\n    from a import d", "a/d.py": ""}
    assert import_circles(files) == []
    assert len(import_circles(files | {"a/d.py": "from a.b import x"})) == 1


def test_a_heavy_dependency_has_one_importing_file_per_room(repository: Path) -> None:
    files = {
        str(path): (repository / path).read_text("utf-8") for path in product_files(repository)
    }
    faults = door_faults(files)
    assert not faults, "\n".join(faults)


def test_the_door_test_counts_lazy_imports_but_not_those_for_types() -> None:
    lazy = "def f():\n    import duckdb.typing"
    for_types = "if TYPE_CHECKING:\n    import duckdb"
    assert door_faults({"schemas/a.py": lazy, "media/b.py": lazy}) == []
    assert door_faults({"schemas/a.py": lazy, "schemas/b.py": for_types}) == []
    assert door_faults({"schemas/a.py": lazy, "schemas/b.py": "from duckdb import connect"}) == [
        "duckdb is imported by 2 files of schemas: schemas/a.py, schemas/b.py"
    ]


def test_packages_commands_and_light_modules_load_nothing_heavy(repository: Path) -> None:
    """Measured in one fresh interpreter, module by module, so that the culprit is named."""
    modules = set(LIGHT)
    for path in product_files(repository):
        name = ".".join(path.with_suffix("").parts)
        if path.name == "__init__.py":
            modules.add(name.removesuffix(".__init__"))
        elif '__name__ == "__main__"' in (repository / path).read_text("utf-8"):
            modules.add(name)
    program = (
        "import importlib, json, sys\n"
        "names, heavy, loaded, found = *map(json.loads, sys.argv[1:]), set(), {}\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "    new = {module for module in heavy if module in sys.modules} - loaded\n"
        "    loaded |= new\n"
        "    found |= {name: sorted(new)} if new else {}\n"
        "print(json.dumps(found))"
    )
    heavy = [*sorted(HEAVY), "numpy"]
    finished = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sorted(modules)), json.dumps(heavy)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == {}
