"""The YAML file of `--config`: options by name, as on the command line without the dashes."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cli.exit_status import UsageError


def read_options(path: Path, names: Mapping[str, str], switches: frozenset[str]) -> dict[str, Any]:
    """The options in a YAML file, by field name. Raises UsageError.

    `names` leads from every key that may be written, in snake case, to its field; `switches` are
    the fields that take true or false.
    """
    options: dict[str, Any] = {}
    for key, value in read_mapping(path):
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
        if isinstance(value, bool) and name not in switches:  # pydantic would read it as 1
            raise UsageError(
                f"--config {path} gives {key!r} the value {str(value).lower()}, which is not "
                "expected there; quote it if it is a text"
            )
        options[name] = value
    return options


def read_mapping(path: Path) -> list[tuple[str, Any]]:
    """Keys and values of a YAML file in their order, repeated keys included. Raises UsageError."""
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
        return []
    if not isinstance(content, dict) or not isinstance(mapping, yaml.MappingNode):
        raise UsageError(
            f"--config {path} should hold options as `key: value` lines, "
            f"not a {type(content).__name__}"
        )
    by_name = {str(key): value for key, value in content.items()}
    return [(str(node.value), by_name.get(str(node.value))) for node, _ in mapping.value]


@contextmanager
def written_options(options: Mapping[str, Any]) -> Iterator[Path]:
    """A file of `--config` with these options, for code that calls a command as a function.

    Paths may be `pathlib.Path`s, lists tuples, numbers those of numpy. The file is
    gone when the context ends, and a UsageError that is raised in it does not speak of it. Raises
    UsageError for a value that no file of options can hold.
    """
    import yaml  # as above

    with TemporaryDirectory() as folder:
        path = Path(folder) / "options.yaml"
        plain = {name: _plain(value) for name, value in options.items()}
        try:
            path.write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
        except yaml.representer.RepresenterError as error:
            _, value = error.args
            raise UsageError(
                f"an option is {value!r}, of the type {type(value).__name__}; give a text, a "
                "number, true or false, a path, or a list of these"
            ) from None
        try:
            yield path
        except UsageError as error:
            sentence = str(error).replace(f" (in {path})", "").replace(f"--config {path}: ", "")
            raise UsageError(sentence.replace(f"--config {path}", "the call")) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Real) and not isinstance(value, bool):  # numpy's numbers too
        return int(value) if isinstance(value, Integral) else float(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
