"""Python files of the user's own that add to our tables: rewards, formats, models, metrics.

    python -m pipeline.build_cot --plugin my_layout.py --format my-layout ...

A plugin is imported before the other options are checked, so that they may name what it registers.
It is a file or a module that Python finds by its dotted name.
"""

import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType

from cli.config_file import read_mapping
from cli.exit_status import UsageError
from cli.option_parser import OptionParser
from schemas.serialization import digest, one_line


def load_plugin(spec: str) -> ModuleType:
    """Import a plugin, `FILE.py` or a dotted module name, once per process. Raises UsageError."""
    is_file = spec.endswith(".py") or "/" in spec
    with _UsersCode(spec):
        return _load_file(Path(spec)) if is_file else import_module(spec)


def load_plugins_of(argv: Sequence[str]) -> None:
    """Import the plugins that a command line names, or else its `--config` file."""
    parser = OptionParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugin", action="extend", nargs="+")
    parser.add_argument("--config")
    given, _ = parser.parse_known_args(argv)
    specs: Iterable[str] | None = given.plugin
    if specs is None:
        specs = _plugins_in(Path(given.config)) if given.config else ()
    for spec in specs:
        load_plugin(spec)


def _load_file(path: Path) -> ModuleType:
    resolved = path.resolve()
    name = f"plugin_{path.stem}_{digest(str(resolved).encode())[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if not resolved.is_file():
        raise UsageError(f"no such file: {resolved}")
    spec = spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise UsageError("its name does not end in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _plugins_in(config_file: Path) -> Iterable[str]:
    """The value of `plugin` in a YAML file; what is no text is left to the check of options."""
    values = (value for key, value in read_mapping(config_file) if key == "plugin")
    value = next(values, ())
    if isinstance(value, str):
        return [value]
    return [spec for spec in value if isinstance(spec, str)] if isinstance(value, list) else []


class _UsersCode:
    """Whatever the user's code raises, its own exceptions and sys.exit included, is one sentence.

    Not an `except`: this is the one place where the errors to expect cannot be listed.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception | SystemExit):
            raise UsageError(
                f"--plugin {self._spec} cannot be imported ({_place(error)}{_words(error)}); "
                "expected a Python file or module that imports without an error"
            ) from error


def _place(error: BaseException) -> str:
    """`FILE, line N: `, the last line of the user's file before the error; empty if it never ran.

    The user's file is the first one behind this one and Python's import machinery.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not _is_import_machinery(frame.filename)]
    lines = [frame.lineno for frame in users if frame.filename == users[0].filename]
    return f"{Path(users[0].filename).name}, line {lines[-1]}: " if users else ""


def _is_import_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen ")


def _words(error: BaseException) -> str:
    """The class and the message, on one line."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    name = "" if isinstance(error, UsageError) else type(error).__name__
    return one_line(": ".join(part for part in (name, message) if part))
