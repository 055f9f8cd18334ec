"""What all commands share: one typed configuration from defaults, a YAML file and flags.

    class BuildConfig(Config):
        questions: Path
        '''Question file.'''
        timeout_seconds: float = Field(60, gt=0)
        '''Time that one file may take to decode.'''

    config = parse_command(BuildConfig, argv, prog="pipeline.build_cot", description="...")

The string under a field is its help text. Wrong usage ends in one sentence on stderr and status 2.
"""

import difflib
import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.extras import missing_extra
from schemas.ledger_errors import LedgerWriteError
from schemas.option_parser import OptionError, option_name, option_parser
from schemas.redaction import redact
from schemas.standard_output import has_reader

EXIT_OK = 0  # every row has its outcome
EXIT_ROWS_FAILED = 1  # done, but some rows ended in media or call errors
EXIT_USAGE = 2  # wrong usage or input
EXIT_STOPPED = 3  # stopped early, resumable

Aliases = Mapping[str, tuple[str, ...]]
DEFAULT_ALIASES: Aliases = {"output_dir": ("--out",)}


class UsageError(Exception):
    """Wrong usage or input. The message is one sentence: what was given, expected, and to do."""


class Config(BaseModel):
    """A command's options: frozen, unknown keys are errors, the string under a field is its help.

    Secrets are never options: a field names the environment variable that holds one.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    def as_json(self) -> dict[str, Any]:
        """Every option by field name, JSON-able, credentials in URLs blanked out."""
        dumped = json.loads(redact(json.dumps(self.model_dump(mode="json"))))
        assert isinstance(dumped, dict)
        return dumped


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
    """As `parse_command`, but wrong usage raises `UsageError`."""
    parser = option_parser(
        config_class, prog=prog, description=description, aliases=aliases, positional=positional
    )
    try:
        from_flags = parser.read(sys.argv[1:] if argv is None else list(argv))
    except OptionError as error:
        raise UsageError(str(error)) from None
    config_file = from_flags.pop("config", None)
    from_file = {} if config_file is None else _read_yaml(Path(config_file), config_class, aliases)
    try:
        return config_class(**(from_file | from_flags))
    except ValidationError as error:
        in_file = {name: config_file for name in from_file if name not in from_flags}
        raise UsageError(_validation_sentence(error, in_file, positional)) from None


def run_command(
    prog: str,
    main: Callable[[], int],
    *,
    usage_errors: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Run a command's `main` and exit with its status.

    `UsageError` and the exceptions in `usage_errors` (those that the user can mend) end in one
    sentence and status 2, `Ctrl-C`, a full disk and a reader of the output that went away
    (`... | head`) in status 3.
    """
    mendable: tuple[type[Exception], ...] = (UsageError, *usage_errors)
    try:
        status = main()
        sys.stdout.flush()
    except mendable as error:
        exit_with_usage_error(prog, error)
    except LedgerWriteError as error:
        print(f"{prog}: stopped: {redact(str(error))}", file=sys.stderr)
        status = EXIT_STOPPED
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        exit_with_usage_error(prog, UsageError(f"this command {sentence}"))
    except BrokenPipeError:
        if has_reader():
            raise  # another pipe than the one that the user reads
        status = EXIT_STOPPED
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        print(
            f"{prog}: stopped: no space is left on the disk of {error.filename or 'the output'}; "
            "make room, and the same command again resumes",
            file=sys.stderr,
        )
        status = EXIT_STOPPED
    except KeyboardInterrupt:
        print(f"{prog}: stopped; the same command again resumes", file=sys.stderr)
        status = EXIT_STOPPED
    sys.exit(status)


def exit_with_usage_error(prog: str, error: Exception) -> NoReturn:
    """One line on stderr, and exit status 2."""
    print(f"{prog}: error: {redact(' '.join(str(error).split()))}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


def print_config(config: Config, file: TextIO | None = None) -> None:
    """The resolved configuration as YAML that `--config` takes; on stderr by default."""
    lines = (
        f"{name.replace('_', '-')}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in config.as_json().items()
    )
    print("\n".join(lines), file=sys.stderr if file is None else file)


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(
        json.dumps(config.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    temporary.replace(path)


def differing_options(
    config: Config, saved_path: Path, may_change: Collection[str] = frozenset()
) -> list[str]:
    """Options that differ from a saved configuration, each as `--option was OLD, is now NEW`.

    `may_change` names the fields that may differ on resume. An option that the saved file does not
    know had its default then; paths are compared by where they lead.
    """
    try:
        saved = json.loads(saved_path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{saved_path} should hold the configuration of the run to resume, but cannot be read "
            f"({error}); use another --output-dir"
        ) from None
    if not isinstance(saved, dict):
        raise UsageError(
            f"{saved_path} should hold a JSON object of options, not {type(saved).__name__}; "
            "use another --output-dir"
        )
    new = config.as_json()
    differences = []
    for name, field in type(config).model_fields.items():
        if name in may_change:
            continue
        if name not in saved and field.is_required():
            differences.append(f"{option_name(name)} was not there, is now {json.dumps(new[name])}")
            continue
        old = (
            saved[name]
            if name in saved
            else _json_default(field.get_default(call_default_factory=True))
        )
        if old != new[name] and not _same_path(getattr(config, name), old):
            differences.append(
                f"{option_name(name)} was {json.dumps(old)}, is now {json.dumps(new[name])}"
            )
    differences += [
        f"{option_name(name)} was {json.dumps(saved[name])}, is no longer an option"
        for name in saved
        if name not in new and name not in may_change
    ]
    return differences


def refuse_changed_options(
    config: Config, saved_path: Path, may_change: Collection[str] = frozenset()
) -> None:
    """Raise `UsageError` when a resumed run's options differ from the saved ones.

    A folder that holds nothing but its options is one of a run that never came to begin.
    """
    differences = differing_options(config, saved_path, may_change)
    if differences and any(path != saved_path for path in saved_path.parent.iterdir()):
        raise UsageError(
            f"{saved_path.parent} was begun with other options: {'; '.join(differences)}; "
            "give the old values to resume, or another --output-dir to begin anew"
        )


def _json_default(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _same_path(new: Any, old: Any) -> bool:
    return isinstance(new, Path) and isinstance(old, str) and new.resolve() == Path(old).resolve()


def _read_yaml(path: Path, config_class: type[Config], aliases: Aliases) -> dict[str, Any]:
    """The options in a YAML file, by field name."""
    import yaml  # only runs with --config pay for it

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        mapping = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(
            f"--config {path} cannot be read ({error.strerror}); give a YAML file of options"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not isinstance(mapping, yaml.MappingNode):
        raise UsageError(
            f"--config {path} should hold options as `key: value` lines, "
            f"not a {type(content).__name__}"
        )
    names = {name: name for name in config_class.model_fields}
    for aliased, flags in aliases.items():
        if aliased in names:
            names |= {flag.lstrip("-").replace("-", "_"): aliased for flag in flags}
    options: dict[str, Any] = {}
    for key_node, _ in mapping.value:
        key = str(key_node.value)
        name = names.get(key.replace("-", "_"))
        if name is None:
            near = difflib.get_close_matches(key.replace("-", "_"), names, n=1, cutoff=0)
            raise UsageError(
                f"--config {path} has an unknown key {key!r}; "
                f"did you mean {near[0].replace('_', '-')!r}?"
            )
        if name in options:
            raise UsageError(
                f"--config {path} gives {name.replace('_', '-')!r} twice; keep one of the two"
            )
        options[name] = _yaml_value(
            path, key, content[key], config_class.model_fields[name].annotation
        )
    return options


def _yaml_value(path: Path, key: str, value: Any, annotation: Any) -> Any:
    """Refuse `true` where a number is meant: pydantic would read it as 1."""
    if isinstance(value, bool) and annotation is not bool:
        raise UsageError(
            f"--config {path} gives {key!r} the value {str(value).lower()}, which is not expected "
            "there; quote it if it is a text"
        )
    return value


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
            "--help tells what each means"
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
