"""Python files of the user's own, imported before the other options are checked."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.config import UsageError, read_config
from cli.option_groups import PluginOptions
from cli.plugins import load_plugin

COLOURS: list[str] = []


class PaintConfig(PluginOptions, choices={"colour": lambda: COLOURS}):
    """A command whose values a plugin may add to."""

    colour: str = "blue"
    """Colour."""


def paint(*words: str) -> PaintConfig:
    return read_config(PaintConfig, words, prog="p2r.paint", description="Paints.")


@pytest.fixture(autouse=True)
def only_blue(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    COLOURS[:] = ["blue"]
    monkeypatch.setitem(sys.modules, "paints", sys.modules[__name__])
    yield
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return str(path)

    return write


ADDS_GREEN = "import paints\npaints.COLOURS.append('green')\n"


def test_a_plugin_is_imported_before_the_options_are_checked(plugin: Callable[[str], str]) -> None:
    file = plugin(ADDS_GREEN)
    assert paint("--colour", "green", "--plugin", file).colour == "green"
    with pytest.raises(UsageError, match="expected one of blue, green, got 'red'"):
        paint("--plugin", file, "--colour", "red")


def test_a_plugin_may_stand_in_the_config_file(
    plugin: Callable[[str], str], tmp_path: Path
) -> None:
    file = plugin(ADDS_GREEN)
    options = tmp_path / "options.yaml"
    options.write_text(f"plugin: [{file}]\ncolour: green\n")
    config = paint("--config", str(options))
    assert (config.colour, config.plugin) == ("green", (file,))


def test_help_lists_what_a_plugin_adds(
    plugin: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        paint("--help", "--plugin", plugin(ADDS_GREEN))
    assert "--colour {blue,green}" in capsys.readouterr().out


def test_a_plugin_is_imported_once(
    plugin: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = plugin(ADDS_GREEN)
    first = load_plugin(file)
    monkeypatch.chdir(tmp_path)
    assert load_plugin("mine.py") is first
    assert COLOURS == ["blue", "green"]


def test_a_module_that_python_finds_is_a_plugin_too(
    plugin: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(plugin("VALUE = 3\n"))
    monkeypatch.syspath_prepend(str(file.parent))
    assert load_plugin("mine").VALUE == 3
    del sys.modules["mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("colour = = 3\n", "SyntaxError: invalid syntax"),
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
        ("raise ValueError('green is taken')\n", "ValueError: green is taken"),
        ("import sys\nsys.exit()\n", "(mine.py, line 2: SystemExit)"),
        ("import sys\nsys.exit('so\\nlong')\n", "(mine.py, line 2: SystemExit: so long)"),
        ("class Odd(Exception): ...\n\nraise Odd('paint')", "(mine.py, line 3: Odd: paint)"),
        ("def f():\n    import json; json.loads('{')\n\nf()", "(mine.py, line 2: JSONDecodeError"),
        ("\ncolour = = 3\n", "(mine.py, line 2: SyntaxError: invalid syntax)"),
        (
            "from cli.config import UsageError\nraise UsageError('paint is taken')",
            "(mine.py, line 2: paint is taken)",
        ),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_wrong_usage(
    plugin: Callable[[str], str], text: str, words: str
) -> None:
    file = plugin(text)
    for _ in range(2):  # a failed import leaves nothing behind that would pass the second time
        with pytest.raises(UsageError) as caught:
            paint("--plugin", file)
        assert file in str(caught.value)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("absent.py", f"no such file: {Path.cwd() / 'absent.py'}"),
        ("no_such_module_of_mine", "No module named 'no_such_module_of_mine'"),
        ("./", "no such file"),
    ],
)
def test_a_plugin_that_is_not_there_is_wrong_usage(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        paint("--plugin", spec)
    assert f"--plugin {spec} cannot be imported" in str(caught.value)
    assert words in str(caught.value)


def test_a_file_without_py_at_its_end_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"notes\.txt cannot be imported .*does not end in \.py"):
        paint("--plugin", str(tmp_path / "notes.txt"))


def test_ctrl_c_while_a_plugin_is_imported_stays_ctrl_c(plugin: Callable[[str], str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        paint("--plugin", plugin("raise KeyboardInterrupt\n"))


def test_a_module_with_a_mistake_is_named_with_its_line(
    plugin: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(plugin("\nx = {}['colour']\n"))
    monkeypatch.syspath_prepend(str(file.parent))
    with pytest.raises(UsageError, match=r"\(mine\.py, line 2: KeyError: 'colour'\)"):
        load_plugin("mine")
