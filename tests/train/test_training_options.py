"""One command line for our options and TRL's."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from cli.config import UsageError
from cli.option_groups import PluginOptions
from train.rl import read_options as rl_options
from train.training_options import (
    OPTIONS_FILE,
    print_training_options,
    read_training_command,
    refuse_changed_training_options,
    save_training_options,
)

REFUSED = {"packing": "a packed row would lose its video"}


FLAGS = ["a", "b", "c"]


class SmallConfig(
    PluginOptions,
    renamed={"words": "flags", "peak_rate": "learning_rate"},
    choices={"flags": lambda: FLAGS},
):
    """Options of a command that exists here only."""

    output_dir: Path
    """Where it goes."""
    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    flags: tuple[str, ...] = ()
    """Some words."""


def read(*words: str) -> tuple[SmallConfig, dict[str, Any]]:
    return read_training_command(
        SmallConfig, "SFTConfig", words, prog="small", description="Small.", refused=REFUSED
    )


def test_our_options_alone_are_read_without_trls() -> None:
    config, trl = read("--out", "o", "--learning-rate", "0.5", "--flags", "a", "b")
    assert (config.output_dir, config.learning_rate, config.flags) == (Path("o"), 0.5, ("a", "b"))
    assert trl == {}


def test_trls_options_are_typed_as_trl_types_them() -> None:
    config, trl = read(
        "--weight-decay=0.01", "--max-steps", "-1", "--flags", "a", "--lr-scheduler-type", "cosine",
        "--tf32", "true", "--no-remove-unused-columns", "--output-dir", "o", "--seed", "7",
        "--lr-scheduler-kwargs", '{"min_lr": 0.1}', "--gradient_checkpointing",
        "--neftune-noise-alpha", "none", "--report-to", "none",
    )  # fmt: skip
    assert config.flags == ("a",)
    assert trl == {
        "weight_decay": 0.01,
        "max_steps": -1,
        "lr_scheduler_type": "cosine",
        "tf32": True,
        "remove_unused_columns": False,
        "seed": 7,
        "lr_scheduler_kwargs": '{"min_lr": 0.1}',
        "gradient_checkpointing": True,
        "neftune_noise_alpha": None,
        "report_to": "none",
    }


def test_a_config_file_holds_both_kinds_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning-rate: 0.5\nweight_decay: 1e-3\nseed: 3\nout: o\n")
    config, trl = read("--config", str(file), "--seed", "4", "--learning-rate", "0.25")
    assert (config.output_dir, config.learning_rate) == (Path("o"), 0.25)
    assert trl == {"weight_decay": 0.001, "seed": 4}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--packing"], "--packing cannot be given: a packed row would lose its video"),
        (["--packing", "false"], "--packing cannot be given"),
        (["--lerning-rate", "1"], "did you mean --learning-rate"),
        (["--weight-dekay", "1"], "did you mean --weight-decay"),
        (["--seed", "x"], "invalid int value: 'x'"),
        (["--learning-rate", "x"], "--learning-rate: expected a valid number"),
        (["--learning-rate", "-1"], "greater than 0"),
    ],
)
def test_wrong_usage_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read("--out", "o", *words)


def test_a_config_file_with_an_unknown_key_or_value_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("weight-dekay: 1\nout: o\n")
    with pytest.raises(
        UsageError, match=r"run\.yaml has an unknown key 'weight-dekay'.*weight-decay"
    ):
        read("--config", str(file))
    file.write_text("weight-decay: 1\nlearning-rate: -1\nout: o\n")
    with pytest.raises(UsageError, match=r"\(in .*run\.yaml\): .*greater than 0"):
        read("--config", str(file))
    file.write_text("packing: true\nout: o\n")
    with pytest.raises(UsageError, match="cannot be given"):
        read("--config", str(file))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("gradient-accumulation-steps: 7.5", "a whole number, got 7.5"),
        ("gradient-accumulation-steps: [8]", "a whole number, got [8]"),
        ("gradient-accumulation-steps: true", "a whole number, got True"),
        ("weight-decay: .nan", "a number, got nan"),
        ("weight-decay: 'nan'", "a number, got nan"),
        ("weight-decay: {}", "a number, got {}"),
    ],
)
def test_a_number_in_a_config_file_is_one(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(line)
    with pytest.raises(UsageError) as error:
        read("--output-dir", "o", "--config", str(file))
    assert str(error.value) == f"--{line.partition(':')[0]}: expected {told}"


def test_numbers_in_a_config_file_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("weight-decay: 1\ngradient-accumulation-steps: '16'\nmax-length: null")
    _, trl = read("--output-dir", "o", "--config", str(file))
    assert trl == {"weight_decay": 1, "gradient_accumulation_steps": 16, "max_length": None}


def test_help_tells_ours_and_help_all_trls_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--help")
    short = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--help-all" in short
    assert "--weight-decay" not in short
    with pytest.raises(SystemExit) as ended:
        read("--help-all")
    long = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--weight-decay" in long
    assert long.count("\n  --learning-rate ") == 1
    assert "--packing: a packed row would lose its video" in long


def test_a_resumed_run_may_not_change_options_of_either_kind(tmp_path: Path) -> None:
    before, trl = read("--out", str(tmp_path), "--seed", "3", "--logging-steps", "5")
    save_training_options(before, trl, tmp_path)
    refuse_changed_training_options(
        before, trl | {"logging_steps": 9.0}, tmp_path, {"logging_steps"}
    )
    with pytest.raises(UsageError, match="--seed was 3, is now not given"):
        refuse_changed_training_options(before, {"logging_steps": 5.0}, tmp_path, set())
    after, _ = read("--out", str(tmp_path), "--learning-rate", "0.5")
    with pytest.raises(UsageError, match=r"--learning-rate was 1e-06, is now 0\.5"):
        refuse_changed_training_options(after, trl, tmp_path, set())


def test_former_names_of_our_options_stay_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("peak-rate: 0.25\nweight_decay: 0.5\nout: o\n")
    config, trl = read("--config", str(file), "--words", "a", "b", "--max-steps", "3")
    assert (config.learning_rate, config.flags) == (0.25, ("a", "b"))
    assert trl == {"weight_decay": 0.5, "max_steps": 3}
    assert capsys.readouterr().err.splitlines() == [
        "small: --words is now called --flags; the old name goes with the next release",
        "small: peak-rate is now called learning-rate; the old name goes with the next release",
    ]
    with pytest.raises(UsageError, match="give --flags only"):
        read("--out", "o", "--flags", "a", "--words", "b")
    with pytest.raises(UsageError, match="did you mean --flags"):
        read("--out", "o", "--flegs", "a")


def test_a_run_of_before_a_renaming_resumes(tmp_path: Path) -> None:
    config, trl = read("--out", str(tmp_path), "--learning-rate", "0.5")
    save_training_options(config, trl, tmp_path)
    saved = json.loads((tmp_path / OPTIONS_FILE).read_text())
    saved["peak_rate"] = saved.pop("learning_rate")
    (tmp_path / OPTIONS_FILE).write_text(json.dumps(saved))
    refuse_changed_training_options(config, trl, tmp_path, set())


@pytest.mark.parametrize("place", ["flag", "file"])
def test_a_plugin_is_imported_before_our_options_are_checked(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "FLAGS", ["a"])
    monkeypatch.setitem(sys.modules, "small", sys.modules[__name__])
    plugin = tmp_path / f"by_{place}.py"
    plugin.write_text("import small\nsmall.FLAGS.append('new')\n")
    file = tmp_path / "run.yaml"
    file.write_text(f"out: o\nweight-decay: 0.5\nplugin: {plugin}\n")
    given = {"flag": ["--out", "o", "--plugin", str(plugin)], "file": ["--config", str(file)]}
    config, trl = read("--flags", "new", *given[place])
    assert config.flags == ("new",)
    assert trl == ({} if place == "flag" else {"weight_decay": 0.5})


def test_a_folder_begun_with_an_option_that_is_gone_since_resumes(tmp_path: Path) -> None:
    words = ["--model", ".", "--questions", "q", "--media-root", "r", "--output-dir"]
    config, trl = rl_options([*words, str(tmp_path), "--algo", "grpo"])
    save_training_options(config, trl, tmp_path)
    saved = json.loads((tmp_path / OPTIONS_FILE).read_text())
    (tmp_path / OPTIONS_FILE).write_text(json.dumps(saved | {"appo_detach": True}))
    refuse_changed_training_options(config, trl, tmp_path, ())
    (tmp_path / OPTIONS_FILE).write_text(json.dumps(saved | {"appo_detach": False}))
    with pytest.raises(UsageError, match="--appo-detach was false, is no longer an option"):
        refuse_changed_training_options(config, trl, tmp_path, ())


def test_a_token_is_neither_stored_nor_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = read("--out", str(tmp_path))
    trl = {"hub_token": "secret-of-no-known-shape", "run_name": "hf_abcdefgh12345"}
    save_training_options(config, trl, tmp_path)
    print_training_options(config, trl)
    stored = "".join(path.read_text() for path in tmp_path.iterdir())
    for text in (stored, capsys.readouterr().err):
        assert "secret-of" not in text
        assert "abcdefgh" not in text
        assert "[redacted]" in text
    refuse_changed_training_options(config, trl, tmp_path, ())
