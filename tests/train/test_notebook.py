"""`reinforce`: its rewards become words of `--reward`. docs/python_api.md, which is run, trains."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.config import UsageError
from train.algorithms.registry import ALGORITHMS, TOKEN_WEIGHTINGS
from train.notebook import RunFolder, _word, reinforce
from train.rewards.registry import REWARDS
from train.trainers.checkpoints import StopAtBoundary


def brevity(completion: str, **_: Any) -> float:
    return float(len(completion) < 10)


def accuracy(completion: str, **_: Any) -> float:
    return 1.0


def default(completion: str, **_: Any) -> float:
    return 1.0


def needs_clip(clip: str, **_: Any) -> float:
    return 1.0


def another(name: str) -> Any:
    def function(completion: str, **_: Any) -> float:
        return 0.0

    function.__name__ = name
    return function


PLUGIN = """
from cli.config import Config
from train.algorithms.registry import register_token_weighting
from train.algorithms.token_weighting import TokenWeighting


class PullOptions(Config):
    pull_strength: float = 1.0
    'How much.'


class Pull(TokenWeighting):
    name = "pull"
    options = PullOptions

    def __init__(self, config):
        assert config.pull_strength == 0.5


register_token_weighting(Pull)
"""
OPTIONS = {"model": ".", "questions": "gone.json", "media_root": "gone", "algo": "grpo"}
THERE = {"questions": "q.json", "media_root": "."}
ROW = {
    "problem_id": 1,
    "problem": "What is seen?",
    "data_type": "video",
    "problem_type": "free-form",
    "options": [],
    "solution": "<answer>a circle</answer>",
    "path": "clip.mp4",
    "data_source": "test",
}


@pytest.mark.parametrize(
    ("name", "weight", "word"),
    [
        ("default", 1, "default"),
        ("perception:default", 1, "perception:default"),
        ("default", 2, "default=2"),
        ("time-iou", 0.5, "time-iou=0.5"),
        (brevity, 1, "brevity=1"),
    ],
)
def test_rewards_are_written_as_the_command_reads_them(name: Any, weight: float, word: str) -> None:
    assert _word(name, weight) == word


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"algo": "grppo"}, "grppo"),
        ({"epsilonn": 1}, "an unknown key 'epsilonn'; did you mean 'epsilon'?"),
        ({"num_generations": "many"} | THERE, "num_generations"),
        ({"rewards": {accuracy: 1}}, "'accuracy' has the name of another reward"),
        ({"rewards": {"default": 2}} | THERE, "weights of their own"),
        ({}, "gone is not a folder"),
        ({"rewards": {brevity: 1}, "reward": ["accuracy"]}, "`rewards` and `reward` were both"),
        ({"rewards": [brevity]}, "`rewards` is a list; give a dict of weights"),
        ({"rewards": {brevity: "1"}}, "is '1'; give a number"),
        ({"rewards": {default: 1}}, "'default' has the name of another reward"),
        ({"rewards": {brevity: 1, another("brevity"): 1}}, "'brevity' has the name of another"),
        ({"rewards": {needs_clip: 1}}, "'clip', which no reward is given"),
        ({"num_generations": np.int64(4), "rewards": {brevity: np.float32(0.5)}}, "not a folder"),
        ({"beta": object()}, "of the type object; give a text"),
    ],
)
def test_wrong_usage_is_one_sentence_and_nothing_is_written(
    more: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.json").write_text(json.dumps([ROW]))
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UsageError) as raised:
        reinforce(**(OPTIONS | {"output_dir": tmp_path / "out"} | more))
    assert sentence in str(raised.value)
    assert "options.yaml" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_the_table_of_rewards_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(REWARDS)
    with pytest.raises(UsageError):
        reinforce(**OPTIONS, output_dir=tmp_path / "out", rewards={"default": 1, brevity: 0.5})
    assert before == REWARDS


def test_a_plugin_brings_its_options(tmp_path: Path) -> None:
    (tmp_path / "my_pull.py").write_text(PLUGIN)
    options = OPTIONS | {"output_dir": tmp_path / "out", "algo": "grpo+pull"}
    try:
        with pytest.raises(UsageError, match="gone is not a folder"):
            reinforce(**options, plugin=[tmp_path / "my_pull.py"], pull_strength=0.5)
    finally:
        TOKEN_WEIGHTINGS.pop("pull")
        for name in [name for name in ALGORITHMS if name.endswith("+pull")]:
            del ALGORITHMS[name]


def test_outside_of_the_main_thread_no_signal_is_touched() -> None:
    with ThreadPoolExecutor(1) as pool:
        before = signal.getsignal(signal.SIGINT)
        assert not pool.submit(_stops_by_request).result()
        assert signal.getsignal(signal.SIGINT) is before


def _stops_by_request() -> bool:
    with StopAtBoundary() as stop:
        return stop.is_requested


def test_a_run_folder_names_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    for step in ("step-000020", "step-000003"):
        (tmp_path / "rollouts" / f"{step}.jsonl").touch()
    (tmp_path / "judge-0.duckdb").touch()
    run = RunFolder(tmp_path, 0)
    assert [path.stem for path in run.rollouts] == ["step-000003", "step-000020"]
    assert run.judge_ledgers == [tmp_path / "judge-0.duckdb"]
    assert (run.model.name, run.metrics.name) == ("model", "metrics.jsonl")
