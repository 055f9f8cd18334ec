"""One command line for our options and TRL's.

    config, trl = parse_training_command(SftConfig, "SFTConfig", argv, prog=..., description=...)

`config` holds our options (`cli.config`), `trl` what the user gave of TRL's, by field name and
typed as TRL types them: `SFTConfig(**trl, ...)`. An option that both have is ours. Flags and the
keys of `--config FILE.yaml` may be of either kind. `--help` lists ours at once; `--help-all` loads
TRL and lists all.
"""

import argparse
import json
import math
import sys
import tempfile
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from cli.config import (
    EXIT_OK,
    Config,
    UsageError,
    config_parser,
    differing_options,
    exit_with_usage_error,
    file_keys,
    print_config,
    read_config,
    require_packages,
    save_config,
    saved_options,
    say,
)
from cli.option_parser import OptionParser, nearest_option, option_name
from cli.plugins import load_plugins_of
from schemas.serialization import REDACTED, redact, write_text
from train.early_checks import TRAINING_PACKAGES, known_options, refuse_missing_trackers

TrlConfigName = Literal["SFTConfig", "GRPOConfig"]
C = TypeVar("C", bound=Config)

# Not config.json: that is the trained model's, in the same folder.
OPTIONS_FILE = "options.json"
_TRL_FILE = "trl_options.json"


def parse_training_command(
    config_class: type[C],
    trl_config: TrlConfigName,
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    refused: Mapping[str, str] | None = None,
    check: Callable[[C], None] | None = None,
    trackers: Sequence[str] = (),
) -> tuple[C, dict[str, Any]]:
    """Our configuration, and TRL's fields that the user gave; ends the process as other commands.

    `refused` are fields of TRL that cannot be given here, each with the sentence that says why.
    `check` is called with our configuration before TRL is loaded for the rest; what it raises is
    raised here. `trackers` are those of a command line without --report-to.
    """
    refusals: list[UsageError] = []

    def checked(config: C) -> None:
        try:
            if check is not None:
                check(config)
        except UsageError as error:
            refusals.append(error)
            raise

    try:
        return read_training_command(
            config_class,
            trl_config,
            sys.argv[1:] if argv is None else argv,
            prog=prog,
            description=description,
            refused=refused or {},
            check=checked,
            trackers=trackers,
        )
    except UsageError as error:
        if error in refusals:
            raise
        exit_with_usage_error(prog, error)


def read_training_command(
    config_class: type[C],
    trl_config: TrlConfigName,
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    refused: Mapping[str, str],
    check: Callable[[C], None] | None = None,
    trackers: Sequence[str] = (),
) -> tuple[C, dict[str, Any]]:
    """As `parse_training_command`, but wrong usage raises `UsageError`."""
    about = f"{description} --help-all also lists the options of TRL's {trl_config}."
    if "plugin" in config_class.model_fields:
        load_plugins_of(argv)  # before --help-all, which lists what they register
    own = config_parser(config_class, prog, about)
    others = _TrlOptions(trl_config, config_class, refused, own)
    if "--help-all" in argv:
        print(own.format_help() + others.help_text())
        sys.exit(EXIT_OK)
    own_words, other_words = _split_words(argv, own)
    others.refuse_unknown_flags(other_words)
    file = _value_of(own_words, "--config")
    with _own_part(file, config_class) as (part, keys):
        others.refuse_unknown_keys(keys, str(file))
        refuse_missing_trackers(_trackers(other_words, keys) or trackers)
        if part is not None:
            own_words = [*own_words, "--config", str(part)]
        try:
            config = read_config(config_class, own_words, prog=prog, description=about)
        except UsageError as error:
            raise UsageError(str(error).replace(str(part), str(file))) from None
    require_packages(*TRAINING_PACKAGES)
    if check is not None:
        check(config)
    given = others.read_keys(keys, str(file)) | others.read_flags(other_words)
    others.refuse_other_numbers(given)
    return config, given


def save_training_options(config: Config, trl: Mapping[str, Any], folder: Path) -> None:
    """Write both into `folder`, for `refuse_changed_training_options` of a resumed run."""
    save_config(config, folder / OPTIONS_FILE)
    write_text(folder / _TRL_FILE, json.dumps(_shown_trl(trl), indent=2) + "\n")


def refuse_changed_training_options(
    config: Config, trl: Mapping[str, Any] | None, folder: Path, may_change: Collection[str]
) -> None:
    """Raise `UsageError` when options differ from those that `folder` was begun with.

    `may_change` names our fields and TRL's that may differ on resume. TRL's are not compared where
    they are not known yet (None).
    """
    differences = differing_options(config, folder / OPTIONS_FILE, may_change)
    saved = {} if trl is None else _saved_trl(folder / _TRL_FILE)
    given = {} if trl is None else _shown_trl(trl)
    for name in sorted({*saved, *given} - {*may_change}):
        if saved.get(name, MISSING) != given.get(name, MISSING):
            was, now = (
                json.dumps(options[name]) if name in options else "not given"
                for options in (saved, given)
            )
            differences.append(f"{option_name(name)} was {was}, is now {now}")
    if differences:
        raise UsageError(
            f"{folder} was begun with other options: {'; '.join(differences)}; give the old values"
            " to resume, or another --output-dir to begin anew"
        )


def saved_training_options(
    config_class: type[C], folder: Path, *, option: str
) -> tuple[C, dict[str, Any]]:
    """Both, as an earlier run saved them in `folder`, which `option` names. Raises UsageError."""
    try:
        config = config_class(**saved_options(folder / OPTIONS_FILE, config_class))
        return config, _saved_trl(folder / _TRL_FILE)
    except (UsageError, ValidationError):
        raise UsageError(
            f"{option} {folder} holds no options of a training run; give the output folder of one"
        ) from None


def _saved_trl(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} should hold TRL's options of the run to resume, but cannot be read ({error});"
            " use another --output-dir"
        ) from None
    return saved


def _shown_trl(trl: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's options as they are stored and printed: without keys."""
    shown: dict[str, Any] = json.loads(redact(json.dumps(trl, default=str)))
    return shown | {name: REDACTED for name in shown if name.endswith("_token") and shown[name]}


def print_training_options(config: Config, trl: Mapping[str, Any]) -> None:
    """The resolved configuration as YAML that `--config` takes, on stderr."""
    print_config(config)
    for name, value in _shown_trl(trl).items():
        say(f"{name.replace('_', '-')}: {json.dumps(value)}")


class _TrlOptions:
    """The fields of a TRL config that are neither ours nor refused. TRL is loaded when asked."""

    def __init__(
        self,
        name: TrlConfigName,
        config_class: type[Config],
        refused: Mapping[str, str],
        own: OptionParser,
    ) -> None:
        self._name = name
        self._own_fields = set(file_keys(config_class))
        self._own_flags = own.long_flags()
        self._refused = refused

    def refuse_unknown_flags(self, words: Sequence[str]) -> None:
        """Raise UsageError for flags that neither we nor TRL have, without loading TRL."""
        names = [word.split("=", 1)[0][2:] for word in words if word.startswith("--")]
        self._refuse(names)
        known = known_options(self._name)
        if known is None:
            return
        for name in names:
            field = name.replace("-", "_")
            if field not in known and field.removeprefix("no_") not in known:
                self._raise_unknown(name, [each.replace("_", "-") for each in known])

    def refuse_unknown_keys(self, keys: Mapping[str, Any], file: str) -> None:
        """The same for the keys of a YAML file that are not ours."""
        self._refuse(keys)
        known = known_options(self._name)
        for key in keys if known is not None else ():
            if key.replace("-", "_") not in (known or ()):
                self._raise_unknown_key(key, file, [each.replace("_", "-") for each in known or ()])

    def read_flags(self, words: Sequence[str]) -> dict[str, Any]:
        """Typed values of the fields that `words` give."""
        if not words:
            return {}
        self._refuse(word.split("=", 1)[0].lstrip("-") for word in words if word.startswith("--"))
        given, unknown = self._parser.parse_known_args(list(words))
        if unknown:
            self._refuse_unknown(unknown[0])
        return vars(given)

    def read_keys(self, keys: Mapping[str, Any], file: str) -> dict[str, Any]:
        """Typed values of the keys of a YAML file that are not ours."""
        if not keys:
            return {}
        actions = {action.dest: action for action in self._parser._actions}
        values = {}
        for key, value in keys.items():
            name = key.replace("-", "_")
            if name not in actions:
                theirs = [field.name.replace("_", "-") for field in self._fields]
                self._raise_unknown_key(key, file, theirs)
            read = actions[name].type
            is_text = isinstance(value, str) and callable(read)
            try:
                values[name] = read(value) if is_text and callable(read) else value
            except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
                raise UsageError(f"--config {file}: {key}: {error}") from None
        return values

    def refuse_other_numbers(self, given: Mapping[str, Any]) -> None:
        """Raise UsageError for NaN, and where a file gives an option of numbers something else: its
        values come as YAML reads them."""
        hints = get_type_hints(self._class) if given else {}
        for name, value in given.items():
            kinds = {*(get_args(hints[name]) or (hints[name],))}
            if not kinds <= {int, float, type(None)} or (value is None and type(None) in kinds):
                continue
            allowed = (int, float) if float in kinds else (int,)
            if isinstance(value, bool) or not isinstance(value, allowed) or math.isnan(value):
                expected = "a number" if float in kinds else "a whole number"
                raise UsageError(f"{option_name(name)}: expected {expected}, got {value!r}")

    def help_text(self) -> str:
        """What `--help-all` adds."""
        parser = argparse.ArgumentParser(
            add_help=False,
            usage=argparse.SUPPRESS,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, 32, width=100),
        )
        group = parser.add_argument_group(f"options of TRL's {self._name}, passed on as they are")
        for field in self._fields:
            meaning = " ".join(str(field.metadata.get("help", "")).split()).replace("%", "%%")
            default = field.default if field.default is not MISSING else "none"
            group.add_argument(
                option_name(field.name), help=f"{meaning} (default: {default})", metavar="VALUE"
            )
        lines = ["\nnot to be given here:\n"] if self._refused else []
        lines += [f"  {option_name(name)}: {why}\n" for name, why in self._refused.items()]
        return "\n" + parser.format_help() + "".join(lines)

    @cached_property
    def _class(self) -> Any:
        import train.trainers.trl_imports

        return getattr(train.trainers.trl_imports, self._name)

    @cached_property
    def _fields(self) -> list[Any]:
        taken = self._own_fields | set(self._refused)
        return [field for field in fields(self._class) if field.init and field.name not in taken]

    @cached_property
    def _parser(self) -> argparse.ArgumentParser:
        """TRL's own parser, in which only given fields have a value."""
        from train.modeling.loading import dataclass_parser

        parser: argparse.ArgumentParser = dataclass_parser(self._class)
        parser.error = _raise_usage_error  # type: ignore[method-assign]
        known = {field.name: field for field in self._fields}
        hints = get_type_hints(self._class)
        for action in list(parser._actions):
            if action.dest not in known:
                for flag in action.option_strings:
                    parser._option_string_actions.pop(flag, None)
                parser._actions.remove(action)
                continue
            action.default = argparse.SUPPRESS
            # Where "none" is a value of TRL's own (report_to), it stays one.
            is_word = known[action.dest].default == "none"
            if _may_be_none(hints[action.dest]) and callable(action.type) and not is_word:
                action.type = _or_none(action.type)
        return parser

    def _refuse(self, names: Any) -> None:
        for name in names:
            why = self._refused.get(name.replace("-", "_").removeprefix("no_"))
            if why is not None:
                raise UsageError(f"--{name.replace('_', '-')} cannot be given: {why}")

    def _refuse_unknown(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            raise UsageError(
                f"unexpected argument {word!r}: options are given as --name VALUE, see --help"
            )
        theirs = [field.name.replace("_", "-") for field in self._fields]
        self._raise_unknown(word.split("=", 1)[0].lstrip("-"), theirs)

    def _raise_unknown(self, name: str, theirs: Sequence[str]) -> NoReturn:
        raise UsageError(f"unknown option --{name}; did you mean --{self._nearest(name, theirs)}?")

    def _raise_unknown_key(self, key: str, file: str, theirs: Sequence[str]) -> NoReturn:
        near = self._nearest(key.replace("_", "-"), theirs)
        raise UsageError(f"--config {file} has an unknown key {key!r}; did you mean {near!r}?")

    def _nearest(self, name: str, theirs: Sequence[str]) -> str:
        taken = {each.replace("_", "-") for each in self._refused}
        names = [flag[2:] for flag in self._own_flags]
        return nearest_option(name, [*names, *(each for each in theirs if each not in taken)])


def _split_words(argv: Sequence[str], own: OptionParser) -> tuple[list[str], list[str]]:
    """The words of our options and those of others; a flag's values stay with it."""
    ours: list[str] = []
    others: list[str] = []
    current = ours
    for word in argv:
        if word.startswith("--") or word in own._option_string_actions:
            current = ours if word.split("=", 1)[0] in own._option_string_actions else others
        current.append(word)
    return ours, others


def _value_of(words: Sequence[str], flag: str) -> str | None:
    """What follows a flag; the last one counts."""
    value = None
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            value = words[place + 1]
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value


def _trackers(words: Sequence[str], keys: Mapping[str, Any]) -> list[str]:
    """The trackers of --report-to, or else those of the file; both as they are written."""
    given: list[str] = []
    is_theirs = False
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            is_theirs = name.replace("-", "_") == "report_to"
            given += [value] if is_theirs and value else []
        elif is_theirs:
            given.append(word)
    if given:
        return given
    in_file = next((keys[key] for key in keys if key.replace("-", "_") == "report_to"), None)
    return [str(each) for each in (in_file if isinstance(in_file, list) else [in_file]) if each]


@contextmanager
def _own_part(
    file: str | None, config_class: type[Config]
) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """A YAML file with the keys of `file` that are ours (None: use it as it is), and the others."""
    import yaml

    content = None
    if file is not None and Path(file).is_file():
        try:
            content = yaml.safe_load(Path(file).read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, OSError):
            content = None  # `read_config` says what is wrong with it
    own = file_keys(config_class)
    foreign = (
        {key: content[key] for key in content if str(key).replace("-", "_") not in own}
        if isinstance(content, dict)
        else {}
    )
    if not foreign:
        yield None, {}
        return
    assert isinstance(content, dict)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "own.yaml"
        part.write_text(
            yaml.safe_dump({key: content[key] for key in content if key not in foreign}), "utf-8"
        )
        yield part, {str(key): value for key, value in foreign.items()}


def _raise_usage_error(message: str) -> NoReturn:
    raise UsageError(message.removeprefix("argument ") + "; --help-all lists the options")


def _may_be_none(hint: Any) -> bool:
    """In what may be a list (--report-to none), the word is TRL's own."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return type(None) in kinds and not any(get_origin(kind) is list for kind in kinds)


def _or_none(read: Any) -> Any:
    return lambda text: None if text == "none" else read(text)
