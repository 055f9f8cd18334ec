"""Flags of a command line, made from the fields of a pydantic model.

`argparse` splits the line and writes `--help`; the values stay texts, and pydantic reads them.
"""

import argparse
import difflib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cli.exit_status import UsageError

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


def option_name(field_name: str) -> str:
    """`output_dir` -> `--output-dir`."""
    return f"--{field_name.replace('_', '-')}"


class OptionParser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence and which knows the nearest right option."""

    former_flags: frozenset[str] = frozenset()
    optional_fields: frozenset[str] = frozenset()
    list_positionals: frozenset[str] = frozenset()
    example: str = ""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing usage."""
        raise UsageError(message.removeprefix("argument ") + "; --help lists the options")

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options in `argv`, by field name; `none` unsets an option that may be unset."""
        known, unknown = self.parse_known_args(argv)
        if unknown:
            raise UsageError(self._unknown_sentence(unknown[0]))
        options = vars(known)
        for name in self.list_positionals:
            if not options.get(name):
                options.pop(name, None)
        return {
            name: None if name in self.optional_fields and value == "none" else value
            for name, value in options.items()
        }

    def format_help(self) -> str:
        """The usage, the options by their groups, and a command line as an example."""
        return super().format_help() + (f"\nexample:\n  {self.example}\n" if self.example else "")

    def long_flags(self) -> list[str]:
        """All flags with two dashes, without the former names of options."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        return [flag for flag in flags if flag not in self.former_flags]

    def _unknown_sentence(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument {word!r}: options are given as --name VALUE, see --help"
        flag = word.split("=", 1)[0]
        near = nearest_option(flag.lstrip("-"), [known[2:] for known in self.long_flags()])
        return f"unknown option {flag}; did you mean --{near}?"


# What options are called elsewhere, or in short; each with our names, the likeliest first.
_SYNONYMS = {
    "lr": ("learning-rate",),
    "alr": ("learning-rate",),
    "epochs": ("num-train-epochs",),
    "num-epochs": ("num-train-epochs",),
    "steps": ("max-steps",),
    "num-steps": ("max-steps",),
    "bs": ("batch-size", "per-device-train-batch-size"),
    "batch": ("batch-size", "per-device-train-batch-size"),
    "train-batch-size": ("batch-size", "per-device-train-batch-size"),
    "grad-accum": ("gradient-accumulation-steps",),
    "accumulate": ("gradient-accumulation-steps",),
    "wd": ("weight-decay",),
    "warmup": ("warmup-steps",),
    "warmup-ratio": ("warmup-steps",),
    "clip": ("max-grad-norm",),
    "kl": ("beta",),
    "kl-coef": ("beta",),
    "kl-coeff": ("beta",),
    "clip-range": ("epsilon",),
    "clip-low": ("epsilon",),
    "clip-high": ("epsilon-high",),
    "group-size": ("num-generations",),
    "num-rollouts": ("num-generations",),
    "rollouts": ("num-generations",),
    "max-tokens": ("max-new-tokens", "max-completion-length"),
    "max-length": ("max-new-tokens", "max-completion-length"),
    "max-seq-length": ("max-length",),
    "lora-r": ("lora-rank",),
    "rank": ("lora-rank",),
    "data": ("dataset", "questions"),
    "dataset": ("questions",),
    "input": ("questions", "dataset", "predictions"),
    "train-file": ("dataset", "questions"),
    "output": ("output-dir",),
    "out-dir": ("output-dir",),
    "output-folder": ("output-dir",),
    "save-dir": ("output-dir",),
    "videos": ("media-root",),
    "video-dir": ("media-root",),
    "video-root": ("media-root",),
    "media-dir": ("media-root",),
    "base-model": ("model",),
    "model-name": ("model",),
    "model-name-or-path": ("model",),
    "checkpoint": ("model",),
    "teacher": ("generator",),
    "judge-model": ("judge",),
    "algorithm": ("algo",),
    "method": ("algo",),
    "gpu": ("device",),
    "workers": ("decode-workers",),
    "num-workers": ("decode-workers",),
    "jobs": ("concurrency",),
    "parallel": ("concurrency",),
    "budget": ("max-cost-usd",),
    "max-cost": ("max-cost-usd",),
    "key": ("api-key-env",),
    "api-key": ("api-key-env",),
    "num-frames": ("frames",),
    "nframes": ("frames",),
    "fps": ("frames",),
    "resume": ("output-dir",),
    "wandb": ("report-to",),
    "logger": ("report-to",),
    "num-samples": ("limit", "num-questions", "size"),
    "max-samples": ("limit",),
    "temp": ("temperature",),
    "timeout": ("timeout-seconds", "decode-timeout-seconds"),
    "precision": ("dtype",),
    "torch-dtype": ("dtype",),
}


def nearest_option(name: str, known: Sequence[str]) -> str:
    """The option that was probably meant by `name`: a word for the same thing, else a near one.

    All without dashes in front; `known` are the options that there are.
    """
    meant = [each for each in _SYNONYMS.get(name.replace("_", "-"), ()) if each in known]
    return meant[0] if meant else difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def option_parser(
    config_class: type[BaseModel],
    *,
    prog: str,
    description: str,
    aliases: Mapping[str, tuple[str, ...]],
    positional: Sequence[str],
    former_names: Mapping[str, str],
    choices: Mapping[str, Callable[[], Iterable[str]]],
    removed: Mapping[str, Any] | None = None,
    groups: Mapping[str, str],
    group_titles: Mapping[str, str],
    example: str,
) -> OptionParser:
    """The parser for the fields of `config_class`, with `--config` and `--help`.

    `aliases` gives fields further flags, `former_names` flags that `--help` does not show: each is
    read as an option of its own, and so is one that was `removed`. `choices` are functions that
    return the values a field takes; a mapping from values to what they mean is shown in `--help`.
    `groups` says under which of the titles an option stands, `example` is what help ends with.
    """
    parser = OptionParser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=_HelpFormatter,
    )
    required = parser.add_argument_group("required (as flags or in the config file)")
    titled = {name: parser.add_argument_group(title) for name, title in group_titles.items()}
    optional = titled["other"]
    may_be_none, list_positionals = set(), set()
    fields = config_class.model_fields
    for name in dict.fromkeys((*positional, *fields)):  # words without a flag are read in order
        field = fields[name]
        annotation, is_optional = _without_none(field.annotation)
        if is_optional:
            may_be_none.add(name)
        group = required if field.is_required() else titled[groups.get(name, "other")]
        keywords = _argument_keywords(name, field, annotation, choices.get(name))
        if name in positional:
            is_list = keywords.pop("action", None) == "extend"
            if is_list:
                list_positionals.add(name)
            keywords["nargs"] = "*" if is_list else "?"
            keywords["metavar"] = name.upper()
            group.add_argument(name, **keywords)
        else:
            group.add_argument(option_name(name), *aliases.get(name, ()), dest=name, **keywords)
    parser.example = example
    parser.usage = _usage(prog, config_class, positional)
    parser.optional_fields = frozenset(may_be_none)
    parser.list_positionals = frozenset(list_positionals)
    parser.former_flags = _add_former_flags(parser, config_class, former_names)
    parser.former_flags |= _add_removed_flags(parser, removed or {})
    optional.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="YAML file of options, keys as here without the dashes in front; flags win over it",
    )
    optional.add_argument("--help", "-h", action="help", help="show this text and exit")
    return parser


def _usage(prog: str, config_class: type[BaseModel], positional: Sequence[str]) -> str:
    """One line: what must be given. All options in one paragraph would be read by nobody."""
    words = [name.upper() for name in positional]
    for name, field in config_class.model_fields.items():
        if field.is_required() and name not in positional:
            value = _argument_keywords(name, field, _without_none(field.annotation)[0], None)
            words.append(f"{option_name(name)} {value.get('metavar', '')}".rstrip())
    return " ".join([prog, *words, "[options]"]).replace("%", "%%")


def _add_former_flags(
    parser: OptionParser, config_class: type[BaseModel], former_names: Mapping[str, str]
) -> frozenset[str]:
    before = set(parser._option_string_actions)
    for old, name in former_names.items():
        field = config_class.model_fields[name]
        keywords = _argument_keywords(name, field, _without_none(field.annotation)[0], None)
        parser.add_argument(option_name(old), dest=old, **keywords | {"help": argparse.SUPPRESS})
        if name in parser.optional_fields:
            parser.optional_fields |= {old}
    return frozenset(set(parser._option_string_actions) - before)


def _add_removed_flags(parser: OptionParser, removed: Mapping[str, Any]) -> frozenset[str]:
    before = set(parser._option_string_actions)
    for old, value in removed.items():
        action = argparse.BooleanOptionalAction if isinstance(value, bool) else "store"
        parser.add_argument(option_name(old), dest=old, action=action, help=argparse.SUPPRESS)
    return frozenset(set(parser._option_string_actions) - before)


def is_list(annotation: Any) -> bool:
    """Whether an option takes any number of values."""
    annotation, _ = _without_none(annotation)
    return get_origin(annotation) is list or (
        get_origin(annotation) is tuple and get_args(annotation)[-1] is Ellipsis
    )


class _HelpFormatter(argparse.HelpFormatter):
    """Wide enough for flags and texts side by side."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


def _argument_keywords(
    name: str,
    field: FieldInfo,
    annotation: Any,
    choices: Callable[[], Iterable[str]] | None,
) -> dict[str, Any]:
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
    if choices is None:
        keywords["metavar"] = _metavar(name, annotation)
    else:
        names = choices()
        keywords["metavar"] = _braces(names)
        if isinstance(names, Mapping):
            keywords["help"] += _meanings(names)
    return keywords


def _metavar(name: str, annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return _braces(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _braces(choice.value for choice in annotation)
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


def _braces(names: Iterable[Any]) -> str:
    return "{" + ",".join(str(name) for name in names if name != "") + "}"


def _meanings(choices: Mapping[str, object]) -> str:
    """Of a table of choices with what each means, one line for `--help`."""
    texts = [f"{name}: {meaning}" for name, meaning in choices.items() if isinstance(meaning, str)]
    return (" " + "; ".join(texts)).replace("%", "%%") if texts else ""


def _help_text(name: str, field: FieldInfo, annotation: Any) -> str:
    """Meaning, and default with its unit; `%` doubled because argparse interpolates."""
    meaning = " ".join((field.description or "").split())
    has_none = not field.is_required() and field.get_default(call_default_factory=True) is None
    if not (has_none and "default" in meaning):  # the meaning explains None
        meaning = f"{meaning} ({_default_text(name, field, annotation)})"
    return meaning.replace("%", "%%")


def _default_text(name: str, field: FieldInfo, annotation: Any) -> str:
    unit = _unit(name)
    if field.is_required():
        return f"required, {_in_unit(unit)}" if unit else "required"
    default = field.get_default(call_default_factory=True)
    if default in (None, "", (), []):
        return f"default: none; {_in_unit(unit)}" if unit and default is None else "default: none"
    if isinstance(default, bool):
        return f"default: {'on' if default else 'off'}"
    if isinstance(default, tuple | list):
        return f"default: {' '.join(str(item) for item in default)}"
    text = default.value if isinstance(default, Enum) else default
    return f"default: {text} {unit}" if unit and annotation in (int, float) else f"default: {text}"


def _in_unit(unit: str) -> str:
    return unit if unit.startswith("per ") else f"in {unit}"


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
