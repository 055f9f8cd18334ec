"""Flags of a command line, made from the fields of a pydantic model.

`argparse` splits the line and writes `--help`; the values stay texts, and pydantic reads them.
"""

import argparse
import difflib
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_UNITS = {
    "seconds": "seconds",
    "minutes": "minutes",
    "pixels": "pixels",
    "tokens": "tokens",
    "words": "words",
    "bytes": "bytes",
    "rows": "rows",
    "usd": "US dollars",
    "gb": "GB",
    "mb": "MB",
    "per_minute": "per minute",
}
_FOLDERS = {"audit", "build", "run"}  # and whatever ends in _dir, _root or _cache
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class OptionError(Exception):
    """The command line cannot be split into options. One sentence."""


def option_name(field_name: str) -> str:
    """`output_dir` -> `--output-dir`."""
    return f"--{field_name.replace('_', '-')}"


class OptionParser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence and which knows the nearest right option."""

    optional_fields: frozenset[str] = frozenset()
    list_positionals: frozenset[str] = frozenset()

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing usage."""
        raise OptionError(message.removeprefix("argument ") + "; --help lists the options")

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options in `argv`, by field name; `none` unsets an option that may be unset."""
        known, unknown = self.parse_known_args(argv)
        if unknown:
            raise OptionError(self._unknown_sentence(unknown[0]))
        options = vars(known)
        for name in self.list_positionals:
            if not options.get(name):
                options.pop(name, None)
        return {
            name: None if name in self.optional_fields and value == "none" else value
            for name, value in options.items()
        }

    def _unknown_sentence(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument {word!r}: options are given as --name VALUE, see --help"
        flag = word.split("=", 1)[0]
        flags = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(flag, flags, n=1, cutoff=0)
        return f"unknown option {flag}; did you mean {near[0]}?"


def option_parser(
    config_class: type[BaseModel],
    *,
    prog: str,
    description: str,
    aliases: Mapping[str, tuple[str, ...]],
    positional: Sequence[str],
) -> OptionParser:
    """The parser for the fields of `config_class`, with `--config` and `--help`."""
    parser = OptionParser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=_HelpFormatter,
    )
    required = parser.add_argument_group("required (as flags or in the config file)")
    optional = parser.add_argument_group("options")
    may_be_none, list_positionals = set(), set()
    for name, field in config_class.model_fields.items():
        annotation, is_optional = _without_none(field.annotation)
        if is_optional:
            may_be_none.add(name)
        group = required if field.is_required() else optional
        keywords = _argument_keywords(name, field, annotation)
        if name in positional:
            is_list = keywords.pop("action", None) == "extend"
            if is_list:
                list_positionals.add(name)
            keywords["nargs"] = "*" if is_list else "?"
            keywords["metavar"] = name.upper()
            group.add_argument(name, **keywords)
        else:
            group.add_argument(option_name(name), *aliases.get(name, ()), dest=name, **keywords)
    optional.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="YAML file of options, keys as here without the dashes in front; flags win over it",
    )
    optional.add_argument("--help", "-h", action="help", help="show this text and exit")
    parser.optional_fields = frozenset(may_be_none)
    parser.list_positionals = frozenset(list_positionals)
    return parser


class _HelpFormatter(argparse.HelpFormatter):
    """Wide enough for flags and texts side by side."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


def _argument_keywords(name: str, field: FieldInfo, annotation: Any) -> dict[str, Any]:
    """How `argparse` takes a field of this type."""
    keywords: dict[str, Any] = {"help": _help_text(name, field, annotation)}
    if annotation is bool:
        keywords["action"] = argparse.BooleanOptionalAction
        return keywords
    if get_origin(annotation) in (tuple, list):
        items = get_args(annotation)
        keywords["action"] = "extend"
        keywords["nargs"] = "+"
        annotation = items[0]
        if get_origin(field.annotation) is tuple and items[-1] is not Ellipsis:
            keywords["action"] = "store"
            keywords["nargs"] = len(items)
    keywords["metavar"] = _metavar(name, annotation)
    return keywords


def _metavar(name: str, annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "{" + ",".join(str(choice) for choice in get_args(annotation)) + "}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "{" + ",".join(str(choice.value) for choice in annotation) + "}"
    if annotation is Path:
        is_folder = name.endswith(("_dir", "_root", "_cache")) or name in _FOLDERS
        return "DIR" if is_folder else "FILE"
    unit = _unit(name)
    if unit and annotation in (int, float):
        return unit.upper().replace(" ", "_")
    if annotation not in _METAVARS:
        raise TypeError(
            f"option {name!r} has type {annotation!r}, which has no form on a command line"
        )
    return _METAVARS[annotation]


def _help_text(name: str, field: FieldInfo, annotation: Any) -> str:
    """Meaning, and default with its unit; `%` doubled because argparse interpolates."""
    meaning = " ".join((field.description or "").split())
    has_none = not field.is_required() and field.get_default(call_default_factory=True) is None
    if not (has_none and "default" in meaning):  # what none stands for is told there
        meaning = f"{meaning} ({_default_text(name, field, annotation)})"
    return meaning.replace("%", "%%")


def _default_text(name: str, field: FieldInfo, annotation: Any) -> str:
    unit = _unit(name)
    if field.is_required():
        return f"required, in {unit}" if unit else "required"
    default = field.get_default(call_default_factory=True)
    if default in (None, "", (), []):
        return f"default: none; in {unit}" if unit and default is None else "default: none"
    if isinstance(default, bool):
        return f"default: {'on' if default else 'off'}"
    if isinstance(default, tuple | list):
        return f"default: {' '.join(str(item) for item in default)}"
    text = default.value if isinstance(default, Enum) else default
    return f"default: {text} {unit}" if unit and annotation in (int, float) else f"default: {text}"


def _unit(name: str) -> str | None:
    """The unit that a field's name ends in."""
    for suffix, unit in _UNITS.items():
        if name == suffix or name.endswith(f"_{suffix}"):
            return unit
    return None


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """`X | None` -> (X, True)."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return members[0], True
    return annotation, False
