"""Every class of options of the product, wherever it is declared."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from cli.config import Config

ROOMS = ("cli", "media", "judges", "pipeline", "train", "sandbox")
COMPOSED = "types"  # module of a class that is put together from tables, as train.rl's is


def product_config_classes(repository: Path) -> list[type[Config]]:
    """All groups and commands; of a generic group the group itself, not its parametrizations."""
    for room in ROOMS:
        for path in sorted((repository / room).rglob("*.py")):
            if _defines_options(path.read_text("utf-8")):
                module = path.parent if path.name == "__init__.py" else path.with_suffix("")
                parts = module.relative_to(repository).parts
                importlib.import_module(".".join(parts))
    return [
        cls
        for cls in dict.fromkeys(_subclasses(Config))
        if cls.__module__.split(".")[0] in (*ROOMS, COMPOSED)
        and cls.__pydantic_generic_metadata__["origin"] is None
    ]


def _defines_options(source: str) -> bool:
    """Whether a file has a class whose base is `Config` or a group of options."""
    bases = (
        ast.unparse(base).split("[")[0].rsplit(".", 1)[-1]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    )
    return any(base == "Config" or base.endswith("Options") for base in bases)


def _subclasses(cls: type[Config]) -> Iterator[type[Config]]:
    for below in cls.__subclasses__():
        yield below
        yield from _subclasses(below)
