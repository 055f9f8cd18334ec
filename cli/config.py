"""What all commands share: one typed configuration from defaults, a YAML file and flags.

    class BuildConfig(QuestionFileOptions[Path]):
        attempts: int = Field(1, ge=1)
        '''Attempts per question until one passes all steps.'''

    config = parse_command(BuildConfig, argv, prog="pipeline.build_cot", description="...")

The string under a field is its help text; `cli.option_groups` holds the options that commands
share. Wrong usage ends in one sentence on stderr and status 2.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cli.config_class import GROUPS, Config, no_such_choice, with_present_names
from cli.config_file import read_options
from cli.exit_status import (
    EXIT_OK,
    EXIT_ROWS_FAILED,
    EXIT_STOPPED,
    EXIT_USAGE,
    CommandStopped,
    UsageError,
    exit_with_usage_error,
    nothing_to_resume,
    require_packages,
    run_command,
    say,
)
from cli.option_parser import OptionParser, is_list, option_name, option_parser
from cli.plugins import load_plugins_of
from cli.saved_options import (
    changed_options,
    differing_options,
    print_config,
    refuse_changed_options,
    save_config,
    saved_options,
)

__all__ = [
    "DEFAULT_ALIASES",
    "EXIT_OK",
    "EXIT_ROWS_FAILED",
    "EXIT_STOPPED",
    "EXIT_USAGE",
    "Aliases",
    "CommandStopped",
    "Config",
    "UsageError",
    "changed_options",
    "config_parser",
    "differing_options",
    "exit_with_usage_error",
    "file_keys",
    "no_such_choice",
    "nothing_to_resume",
    "parse_command",
    "print_config",
    "read_config",
    "refuse_changed_options",
    "require_packages",
    "run_command",
    "save_config",
    "saved_options",
    "say",
    "with_present_names",
]

Aliases = Mapping[str, tuple[str, ...]]
DEFAULT_ALIASES: Aliases = {"output_dir": ("--out",)}

C = TypeVar("C", bound=Config)


def parse_command(
    config_class: type[C],
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    aliases: Aliases = DEFAULT_ALIASES,
    positional: Sequence[str] = (),
) -> C:
    """The configuration of one command run; ends the process on wrong usage (2) and `--help` (0).

    `argv` is None for `sys.argv[1:]`. `aliases` gives fields further flags; fields in `positional`
    are given without a flag.
    """
    try:
        return read_config(
            config_class,
            argv,
            prog=prog,
            description=description,
            aliases=aliases,
            positional=positional,
        )
    except UsageError as error:
        exit_with_usage_error(prog, error)


def read_config(
    config_class: type[C],
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    aliases: Aliases = DEFAULT_ALIASES,
    positional: Sequence[str] = (),
) -> C:
    """As `parse_command`, but wrong usage raises `UsageError`.

    Where the command has the option `plugin`, the plugins that it names are imported first.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    if "plugin" in config_class.model_fields:
        load_plugins_of(words)
    parser = config_parser(config_class, prog, description, aliases, positional)
    from_flags = parser.read(words)
    config_file = from_flags.pop("config", None)
    from_file = {} if config_file is None else _read_file(config_file, config_class, aliases)
    from_flags = _renamed(from_flags, config_class, prog, "--")
    from_file = _renamed(from_file, config_class, prog, "")
    try:
        return config_class(**(from_file | from_flags))
    except ValidationError as error:
        in_file = {name: config_file for name in from_file if name not in from_flags}
        raise UsageError(_validation_sentence(error, in_file, positional)) from None


def config_parser(
    config_class: type[Config],
    prog: str,
    description: str,
    aliases: Aliases = DEFAULT_ALIASES,
    positional: Sequence[str] = (),
) -> OptionParser:
    """The parser of a command's flags, former names included."""
    return option_parser(
        config_class,
        prog=prog,
        description=description,
        aliases=aliases,
        positional=positional,
        former_names=config_class.former_names,
        removed=config_class.removed_options,
        choices=config_class.option_choices,
        groups=config_class.option_groups,
        group_titles=GROUPS,
        example=f"python -m {prog} {config_class.example}" if config_class.example else "",
    )


def file_keys(config_class: type[Config], aliases: Aliases = DEFAULT_ALIASES) -> dict[str, str]:
    """Every key of a YAML file, in snake case, with its field.

    A former name and a removed option are fields of their own.
    """
    former = (*config_class.former_names, *config_class.removed_options)
    keys = {name: name for name in (*config_class.model_fields, *former)}
    for name, flags in aliases.items():
        if name in keys:
            keys |= {flag.lstrip("-").replace("-", "_"): name for flag in flags}
    return keys


def _read_file(path: str, config_class: type[Config], aliases: Aliases) -> dict[str, Any]:
    fields = config_class.model_fields
    switches = {name for name, field in fields.items() if field.annotation is bool}
    switches |= {old for old, name in config_class.former_names.items() if name in switches}
    removed = config_class.removed_options
    switches |= {name for name, value in removed.items() if isinstance(value, bool)}
    options = read_options(Path(path), file_keys(config_class, aliases), frozenset(switches))
    lists = {name for name, field in fields.items() if is_list(field.annotation)}
    lists |= {old for old, name in config_class.former_names.items() if name in lists}
    return {
        name: [value] if name in lists and isinstance(value, str | int | float) else value
        for name, value in options.items()
    }


def _renamed(
    given: Mapping[str, Any], config_class: type[Config], prog: str, dashes: str
) -> dict[str, Any]:
    """The options under their present names, with a line on stderr for each former name."""
    spelled: dict[str, str] = {}
    for name, value in given.items():
        present = config_class.former_names.get(name, name)
        negation = "no-" if dashes and value is False else ""
        old, new = (f"{dashes}{negation}{one.replace('_', '-')}" for one in (name, present))
        if name in config_class.removed_options:
            _check_removed(old, value, config_class.removed_options[name], prog)
            continue
        if present in spelled:
            raise UsageError(
                f"{spelled[present]} and {old} are names of the same option; give {new} only"
            )
        spelled[present] = old
        if name != present:
            print(
                f"{prog}: {old} is now called {new}; the old name goes with the next release",
                file=sys.stderr,
            )
    return with_present_names(given, config_class)


def _check_removed(spelled: str, value: Any, only_value: Any, prog: str) -> None:
    """A line on stderr for an option that is gone; raises UsageError unless it changes nothing."""
    if value != only_value:
        raise UsageError(
            f"{spelled} cannot be given: it is no longer an option, and its only value was "
            f"{json.dumps(only_value)}; leave it out"
        )
    print(f"{prog}: {spelled} is no longer an option and changes nothing", file=sys.stderr)


def _validation_sentence(
    error: ValidationError, in_file: Mapping[str, str | None], positional: Sequence[str]
) -> str:
    """All that is wrong, in one sentence in the user's terms."""

    def shown(name: str) -> str:
        return name.upper() if name in positional else option_name(name)

    missing = [str(e["loc"][0]) for e in error.errors() if e["type"] == "missing"]
    parts = []
    if missing:
        plural = "options are" if len(missing) > 1 else "option is"
        parts.append(
            f"required {plural} missing: {', '.join(shown(name) for name in missing)}; "
            "--help explains them"
        )
    for problem in error.errors():
        if problem["type"] == "missing":
            continue
        if problem["type"] in ("value_error", "assertion_error"):
            message = str(problem["ctx"]["error"])
        else:
            message = problem["msg"].replace("Input should be", "expected", 1)
            message = message[:1].lower() + message[1:] + f", got {problem['input']!r}"
        if not problem["loc"]:
            parts.append(message)
            continue
        name = str(problem["loc"][0])
        place = f" (in {in_file[name]})" if name in in_file else ""
        parts.append(f"{shown(name)}{place}: {message}")
    return "; ".join(parts)
