"""An advantage of the user's own, and the algorithm that it makes, from a file outside."""

from pathlib import Path

import pytest
from helpers.tiny_rl import read_metrics, render_questions, rl_command, rollouts_of_step, run_rl

PLUGIN = '''
from train.algorithms.registry import Advantage, AlgoSpec, register_advantage, register_algorithm


def better_than_median(perception, reasoning, segment_ids, *, scale):
    """1 above the group's median, -1 below, 0 at it."""
    sign = (reasoning - reasoning.median()).sign()
    return sign[:, None].expand(segment_ids.shape)


register_advantage(Advantage("sign", better_than_median))
register_algorithm(AlgoSpec("sign-grpo", "sign", True, "dapo", 0.0, 0.2, 0.28))


def size(completion, **_):
    return len(completion)
'''


@pytest.mark.heavy
@pytest.mark.slow
def test_an_algorithm_with_an_advantage_of_the_users_own(tmp_path: Path, repository: Path) -> None:
    world = render_questions(tmp_path / "world")
    (tmp_path / "mine.py").write_text(PLUGIN)
    more = ["--plugin", "mine.py", "--reward", "mine.py:size", "--max-steps", "1"]
    words = rl_command(world, tmp_path / "out", *more, algo="sign-grpo")
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [each["advantages"]["reasoning"] for each in rollouts_of_step(tmp_path / "out", 1)]
    assert {*found} <= {-1.0, 0.0, 1.0}
    assert {*found} >= {-1.0, 1.0}
    (line,) = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert line["advantages/reasoning/smallest"] == 1.0
    shown = " ".join(run_rl([*words, "--help"], tmp_path, repository).stdout.split())
    assert "pa-dapo, sign-grpo, each also with +appo behind it" in shown
    refused = run_rl(rl_command(world, tmp_path / "out", algo="sign-grpo"), tmp_path, repository)
    assert refused.returncode == 2
    assert "unknown algorithm 'sign-grpo'" in refused.stderr, "without the plugin"
