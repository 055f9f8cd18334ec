"""Our reward classes as ms-swift makes and calls them."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.judged_groups import OTHER, QUESTION, RULES, asked, text_of
from helpers.released import SWIFT, run_beside, unpacked
from reference.naive_advantages import naive_group_advantages
from servers.model_server import RunningServer

from cli.config import UsageError
from train.integrations.completion_rewards import question_column
from train.integrations.swift_rewards import filled, register

NAN = math.nan


def test_a_missing_reward_is_its_groups_mean_so_its_advantage_is_0() -> None:
    values = filled([4.0, NAN, 1.0, NAN, NAN, 3.0], ["a", "a", "a", "b", "b", "c"], None)
    assert values == [4.0, 2.5, 1.0, 0.0, 0.0, 3.0]
    advantages = naive_group_advantages(values[:3], 3, False, 0.0)
    assert advantages == naive_group_advantages([4.0, NAN, 1.0], 3, False, 0.0) == [1.5, 0, -1.5]


def test_a_group_that_lies_across_processes_has_no_known_mean() -> None:
    assert filled([1.0, 2.0], ["a", "a"], 4) == [1.0, 2.0], "nothing is missing"
    assert filled([1.0, NAN], ["a", "a"], 2) == [1.0, 1.0]
    with pytest.raises(UsageError, match="2 of 4 completions are in this process"):
        filled([1.0, NAN], ["a", "a"], 4)


@pytest.mark.heavy
def test_three_classes_of_the_table_judge_a_batch_once(
    model_server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ms-swift 4.6.0 does it: `orms[name](args=args)`, then `reward(completions, **columns)`."""
    model_server.control(replies=RULES)
    path = tmp_path / "rewards.yaml"
    path.write_text(
        f"output-dir: {tmp_path / 'out'}\njudge: openai:judge@{model_server.openai_url}\n"
        "retries: 0\nlength-weight: 0\n"
    )
    monkeypatch.setenv("P2R_REWARDS", str(path))
    orms = {"accuracy": object}
    register(orms)
    assert sorted(orms) == ["accuracy", "p2r", "p2r_perception", "p2r_reasoning"]
    completions = [text_of("ok"), text_of("mute"), text_of("poor"), text_of("poor", "C")]
    columns = {
        "trainer_state": None,
        "question": [question_column(QUESTION)] * 3 + [question_column(OTHER)],
        "prompt_id": ["1", "1", "1", "2"],
        "response_token_ids": [[], [], [], []],
        "solution": ["B"] * 4,
    }
    args = SimpleNamespace(num_generations=1)
    found = {
        name: orms[name](args=args)(completions, **columns)  # type: ignore[operator]
        for name in ("p2r", "p2r_perception", "p2r_reasoning")
    }
    assert found == {
        "p2r": [4.0, 3.5, 3.0, 2.0],
        "p2r_perception": [2.0, 1.5, 1.0, 1.0],
        "p2r_reasoning": [2.0, 2.0, 2.0, 1.0],
    }
    assert asked(model_server) == 1 + 4  # the first one asks whether the judge is there
    with pytest.raises(UsageError, match="has no column question"):
        orms["p2r"](args=args)(completions)  # type: ignore[operator]


PROGRAM = r"""
import json, torch
from types import SimpleNamespace
from helpers.judged_groups import QUESTION, text_of
from swift.rewards import orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func
from train.integrations.completion_rewards import question_column
from train.integrations.swift_rewards import register

register(orms)
args = SimpleNamespace(num_generations=2)
functions = [orms[name](args=args) for name in ("p2r", "p2r_reasoning")]
samples = [
    GRPOSample(
        messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": text}],
        extra={"question": question_column(QUESTION), "solution": "B"},
        prompt_id="1",
        request_id=str(number),
    )
    for number, text in enumerate([text_of("ok"), text_of("ok", "C")])
]
rewards = compute_rewards_per_func(samples, functions, [None, None], torch.device("cpu"))
print(json.dumps(rewards.tolist()))
"""


@pytest.mark.campaign
@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_ms_swift_itself_makes_and_calls_them(tmp_path: Path, repository: Path) -> None:
    """ms-swift 4.6.0 from its wheel: it needs the network."""
    options = tmp_path / "rewards.yaml"
    options.write_text(f"output-dir: {tmp_path / 'out'}\nreward: [accuracy, perception:format]\n")
    packages = unpacked(tmp_path, SWIFT)
    printed = run_beside(packages, PROGRAM, repository, {"P2R_REWARDS": str(options)})
    assert json.loads(printed.splitlines()[-1]) == [[2.0, 1.0], [1.0, 0.0]]
