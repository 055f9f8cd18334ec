"""What ends a training command within seconds, before torch or TRL is loaded."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.config import UsageError
from train.early_checks import known_options, refuse_missing_model, refuse_missing_trackers

RL = ["-m", "train.rl", "--questions", "q.json", "--media-root", ".", "--algo", "grpo"]
SFT = ["-m", "train.sft", "--dataset", "data", "--media-root", "."]
TOLD_SECONDS = 4.0  # of processor time; half a minute where TRL is loaded


def ended(*words: str) -> tuple[str, float]:
    """What a command says on stderr that ends with 2, and its seconds of processor time."""
    code = (
        "import os, runpy, sys\n"
        "try:\n"
        "    runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'trl'} & {*sys.modules}\n"
        "    print('LOADED', sorted(heavy), file=sys.stderr)\n"
    )
    module, *rest = words[1:]
    started = time.process_time()
    done = subprocess.run(
        [sys.executable, "-c", code, module, *rest], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "LOADED []" in done.stderr, done.stderr
    return done.stderr, time.process_time() - started


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*RL, "--lr", "1e-5"], "unknown option --lr; did you mean --learning-rate?"),
        ([*SFT, "--lr", "1e-5"], "unknown option --lr; did you mean --learning-rate?"),
        ([*RL, "--gruop-size", "4"], "unknown option --gruop-size"),
        ([*RL, "--beta", "0.1", "--algo", "appo"], "unknown algorithm 'appo'"),
        ([*RL, "--beta", "0.1"], "out/rl holds a build of pipeline.build_cot"),
        ([*SFT, "--warmup-steps", "3"], "out/rl holds a build of pipeline.build_cot"),
    ],
)
def test_mistakes_are_told_before_anything_heavy_is_loaded(
    tmp_path: Path, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/rl/dataset").mkdir(parents=True)
    (tmp_path / "out/rl/config.json").write_text('{"attempts": 1}')
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    said, _ = ended(*words, "--model", "./m", "--output-dir", "out/rl")
    assert told in said


@pytest.mark.parametrize("name", ["out/no/such", "./model", "/no/model", "~/no-model-here"])
def test_a_path_that_is_not_there_is_told_without_asking_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=f"--model {name}: there is no such folder$"):
        refuse_missing_model(name)


def test_a_name_is_the_hubs_where_it_answers_or_was_asked_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where there is no folder `out`: it would be a path
    for name in ("out/stf", "gpt2"):
        with pytest.raises(UsageError, match=r"no such folder here, and .*127.0.0.1:9 cannot be"):
            refuse_missing_model(name)
    (tmp_path / "models--out--stf").mkdir()
    refuse_missing_model("out/stf")
    refuse_missing_model(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        refuse_missing_model("out/other")


def test_a_name_in_a_folder_that_is_here_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/sft").mkdir(parents=True)
    refuse_missing_model("out/sft")
    with pytest.raises(UsageError, match=r"no such folder; did you mean out/sft\?$"):
        refuse_missing_model("out/stf")


def test_trackers_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for fine in ("none", "all", ["tensorboard"], [], None):
        refuse_missing_trackers(fine)
    with pytest.raises(UsageError, match=r"clearml.*pip install clearml, or give --report-to none"):
        refuse_missing_trackers(["tensorboard", "clearml"])
    with pytest.raises(UsageError, match="--report-to wandd: expected none, all or azure_ml"):
        refuse_missing_trackers("wandd")


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["SFTConfig", "GRPOConfig"])
def test_options_read_from_the_source_are_those_of_the_class(name: str) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    import train.trainers.trl_imports
    from train.early_checks import TRACKERS

    known = known_options(name)
    fields = dataclasses.fields(getattr(train.trainers.trl_imports, name))
    assert known is not None
    assert {field.name for field in fields} <= known
    assert {*TRACKERS} == {*INTEGRATION_TO_CALLBACK}
