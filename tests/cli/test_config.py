"""The configuration that all commands share: precedence, sentences, help, exit statuses."""

import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from helpers.config_classes import product_config_classes
from helpers.example_config import REQUIRED, ExampleConfig, read, sentence

from cli.config import (
    EXIT_STOPPED,
    EXIT_USAGE,
    Config,
    UsageError,
    parse_command,
    print_config,
    read_config,
    run_command,
)
from cli.exit_status import EXTRA_OF_PACKAGE
from cli.option_parser import nearest_option


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "options.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_flags_win_over_the_config_file_which_wins_over_defaults(
    config_file: Callable[[str], str],
) -> None:
    path = config_file("threshold: 0.3\nlimit: 5\n")
    config = read(*REQUIRED, "--config", path, "--threshold", "0.9")
    assert (config.threshold, config.limit, config.span) == (0.9, 5, (3, 4))


def test_a_flag_given_before_the_config_file_wins_too(config_file: Callable[[str], str]) -> None:
    assert read("--limit", "7", "--config", config_file("limit: 5"), *REQUIRED).limit == 7


def test_config_file_keys_are_kebab_or_snake_case_or_an_alias(
    config_file: Callable[[str], str],
) -> None:
    path = config_file(
        "questions: q.json\nout: there\nstrip_prefix: [a, b]\ndecode-timeout-seconds: 5\n"
    )
    config = read("--config", path)
    assert config.output_dir == Path("there")
    assert config.strip_prefix == ("a", "b")
    assert config.decode_timeout_seconds == 5


def test_a_list_flag_takes_several_values_and_may_be_repeated(
    config_file: Callable[[str], str],
) -> None:
    path = config_file("strip-prefix: [from-the-file]")
    config = read(
        *REQUIRED,
        "--config",
        path,
        "--strip-prefix",
        "a",
        "b",
        "--strip-prefix",
        "c",
        "--span",
        "1",
        "2",
    )
    assert config.strip_prefix == ("a", "b", "c")
    assert config.span == (1, 2)


def test_a_switch_can_be_turned_off_against_the_config_file(
    config_file: Callable[[str], str],
) -> None:
    path = config_file("batch: true\nmax-cost-usd: 3\n")
    assert read(*REQUIRED, "--config", path).batch is True
    assert read(*REQUIRED, "--config", path, "--no-batch").batch is False


def test_none_unsets_an_option_that_the_config_file_set(config_file: Callable[[str], str]) -> None:
    assert read(*REQUIRED, "--config", config_file("limit: 5"), "--limit", "none").limit is None


def test_out_is_short_for_output_dir() -> None:
    assert read("--questions", "q.json", "--out", "there").output_dir == Path("there")


def test_a_field_can_be_positional() -> None:
    config = read_config(
        ExampleConfig,
        ["there", "--questions", "q.json"],
        prog="p2r.example",
        description="",
        positional=("output_dir",),
    )
    assert config.output_dir == Path("there")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["--questions, --output-dir", "missing"]),
        (["--out", "o"], ["--questions", "missing"]),
        (
            [*REQUIRED, "--thresold", "1"],
            ["unknown option --thresold", "did you mean --threshold?"],
        ),
        ([*REQUIRED, "--thresold=1"], ["unknown option --thresold;"]),
        ([*REQUIRED, "--thresh", "0.5"], ["unknown option --thresh", "--threshold"]),
        ([*REQUIRED, "stray"], ["'stray'"]),
        ([*REQUIRED, "--threshold", "1.5"], ["--threshold", "less than or equal to 1", "'1.5'"]),
        ([*REQUIRED, "--threshold", "nan"], ["--threshold", "'nan'"]),
        ([*REQUIRED, "--max-cost-usd", "inf"], ["--max-cost-usd", "'inf'"]),
        ([*REQUIRED, "--limit", "many"], ["--limit", "integer", "'many'"]),
        ([*REQUIRED, "--reader", "ffmpeg"], ["--reader", "'decord' or 'pyav'", "'ffmpeg'"]),
        ([*REQUIRED, "--limit"], ["--limit", "expected one argument"]),
        ([*REQUIRED, "--span", "1"], ["--span", "expected 2 arguments"]),
        ([*REQUIRED, "--batch"], ["--batch needs --max-cost-usd"]),
        ([*REQUIRED, "--config", "absent.yaml"], ["absent.yaml", "No such file"]),
    ],
)
def test_wrong_usage_is_told_in_the_users_terms(argv: list[str], words: list[str]) -> None:
    message = sentence(*argv)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thresold: 0.5", ["'thresold'", "did you mean 'threshold'?"]),
        ("strip-prefx: a", ["'strip-prefx'", "did you mean 'strip-prefix'?"]),
        ("threshold: 7", ["--threshold (in ", "options.yaml", "less than or equal to 1"]),
        ("limit: true", ["'limit'", "true"]),
        ("limit: 3\nlimit: 4", ["'limit' twice"]),
        ("output-dir: a\noutput_dir: b", ["'output-dir' twice"]),
        ("- a\n- b", ["not a list"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_a_wrong_config_file_is_told_with_its_key(
    config_file: Callable[[str], str], text: str, words: list[str]
) -> None:
    message = sentence(*REQUIRED, "--config", config_file(text))
    for word in words:
        assert word in message


def test_an_empty_config_file_changes_nothing(config_file: Callable[[str], str]) -> None:
    assert read(*REQUIRED, "--config", config_file("")) == read(*REQUIRED)


def test_wrong_usage_is_one_line_on_stderr_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_command(ExampleConfig, ["--a\nb", "x"], prog="p2r.example", description="")
    assert caught.value.code == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("p2r.example: error: unknown option")
    assert err.count("\n") == 1


def test_help_tells_meaning_default_and_unit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_command(ExampleConfig, ["--help"], prog="p2r.example", description="An example.")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Question file; 100 % of it is read. (required)" in text
    assert "Time that one file may take to decode. (default: 60 seconds)" in text
    assert "Money to spend at most. (default: none; in US dollars)" in text
    assert "--batch, --no-batch Use the batch API. (default: off)" in text
    assert "--reader {decord,pyav} Video reader. (default: decord)" in text
    assert "--output-dir DIR, --out DIR" in text


def test_help_tells_what_none_stands_for_instead_of_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Cached(Config):
        frame_cache: Path | None = None
        """Folder of frames; default ~/.cache."""
        limit: int | None = None
        """Rows to take."""
        calls_per_minute: int | None = None
        """Calls to make."""

    with pytest.raises(SystemExit):
        parse_command(Cached, ["--help"], prog="p", description="An example.")
    text = " ".join(capsys.readouterr().out.split())
    assert "--frame-cache DIR Folder of frames; default ~/.cache. --limit" in text
    assert "--limit N Rows to take. (default: none)" in text
    assert "Calls to make. (default: none; per minute)" in text


def test_the_printed_configuration_is_a_config_file(
    config_file: Callable[[str], str],
) -> None:
    config = read(*REQUIRED, "--batch", "--max-cost-usd", "3", "--strip-prefix", "ä", "yes")
    printed = io.StringIO()
    print_config(config, printed)
    assert yaml.safe_load(printed.getvalue())["strip-prefix"] == ["ä", "yes"]
    assert read("--config", config_file(printed.getvalue())) == config


class _MendableError(Exception):
    pass


def test_run_command_turns_exceptions_into_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    def status_of(main: Callable[[], int]) -> object:
        with pytest.raises(SystemExit) as caught:
            run_command("p2r.example", main, usage_errors=(_MendableError,))
        return caught.value.code

    def raising(error: BaseException) -> Callable[[], int]:
        def main() -> int:
            raise error

        return main

    assert status_of(lambda: 1) == 1
    assert status_of(raising(UsageError("one\ntwo"))) == EXIT_USAGE
    assert status_of(raising(_MendableError("three"))) == EXIT_USAGE
    assert status_of(raising(KeyboardInterrupt())) == EXIT_STOPPED
    errors = capsys.readouterr().err.splitlines()
    assert errors[:2] == ["p2r.example: error: one two", "p2r.example: error: three"]
    with pytest.raises(ZeroDivisionError):
        run_command("p2r.example", raising(ZeroDivisionError()))


def undocumented_fields(config_class: type[Config]) -> list[str]:
    return [
        name
        for name, field in config_class.model_fields.items()
        if not (field.description or "").strip()
    ]


def test_a_field_without_help_is_found() -> None:
    class Silent(Config):
        """No help under the second field."""

        spoken: int = 1
        """Spoken."""
        silent: int = 1

    assert undocumented_fields(Silent) == ["silent"]


def test_every_option_of_every_command_has_help(repository: Path) -> None:
    classes = product_config_classes(repository)
    assert len(classes) > 40
    silent = {cls.__name__: undocumented_fields(cls) for cls in classes}
    assert {name: fields for name, fields in silent.items() if fields} == {}


def test_config_imports_nothing_heavy() -> None:
    heavy = "('torch', 'duckdb', 'pyarrow', 'numpy', 'yaml', 'jinja2')"
    code = (
        "import sys, cli.config, schemas.runs; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_goes_away_ends_a_command_quietly() -> None:
    program = (
        "from cli.config import run_command\n"
        "def main():\n"
        "    print('x' * 1_000_000)\n"
        "    return 0\n"
        "run_command('p', main)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (EXIT_STOPPED, "")


def test_another_broken_pipe_is_a_fault_of_ours() -> None:
    def main() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_command("p", main)


@pytest.mark.parametrize(("package", "extra"), [("scipy.stats", "audit"), ("trl", "train")])
def test_a_package_of_an_extra_that_is_not_installed_is_named_with_the_extra(
    package: str, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    with pytest.raises(SystemExit) as caught:
        run_command("p", main)
    assert caught.value.code == EXIT_USAGE
    assert f'pip install "videop2r-toolkit[{extra}]"' in capsys.readouterr().err


def test_a_module_of_ours_that_is_missing_is_a_fault_of_ours() -> None:
    def main() -> int:
        raise ModuleNotFoundError("No module named 'judges.gone'", name="judges.gone")

    with pytest.raises(ModuleNotFoundError):
        run_command("p", main)


def test_each_extra_that_is_named_brings_its_package(repository: Path) -> None:
    text = (repository / "pyproject.toml").read_text("utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    of_transformers = requires("transformers") or []
    for package, extra in EXTRA_OF_PACKAGE.items():
        brought = [*extras[extra], *(of_transformers if extra == "local" else [])]
        assert any(re.match(rf"{package}\b", wanted) for wanted in brought), package


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("lr", ["lora-rank", "learning-rate"], "learning-rate"),
        ("lr", ["lora-rank", "limit"], "lora-rank"),  # a command without a learning rate
        ("max_tokens", ["max-pixels", "max-new-tokens"], "max-new-tokens"),
        ("group-size", ["group-reward", "num-generations"], "num-generations"),
        ("out_dir", ["audit", "output-dir"], "output-dir"),
        ("judg", ["judge", "batch"], "judge"),
    ],
)
def test_a_word_for_the_same_thing_is_the_option_that_is_meant(
    word: str, known: list[str], meant: str
) -> None:
    assert nearest_option(word, known) == meant


def test_an_empty_path_is_not_the_folder_one_is_in(tmp_path: Path) -> None:
    """`--output-dir "$OUT"` where OUT is not set."""
    with pytest.raises(UsageError, match=r"--output-dir: expected a path, got ''"):
        read("--questions", "q.json", "--output-dir", "")
    file = tmp_path / "options.yaml"
    file.write_text('questions: ""\noutput_dir: .\n')
    with pytest.raises(UsageError, match=r"--questions \(in .*\): expected a path, got ''"):
        read("--config", str(file))
    config = read("--questions", "q.json", "--output-dir", ".", "--judge", "")
    assert (config.output_dir, config.judge) == (Path(), "")
