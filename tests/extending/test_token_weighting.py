"""A token weighting of the user's own, with its options and metrics, from a file outside."""

from pathlib import Path

import pytest
from helpers.tiny_rl import read_metrics, render_questions, rl_command, rollouts_of_step, run_rl

PLUGIN = '''
from pydantic import Field

from cli.config import Config
from train.algorithms.registry import register_token_weighting
from train.algorithms.token_weighting import TokenWeighting, TokenWeights


class MineOptions(Config):
    mine_strength: float = Field(1.5, gt=0)
    """Weight of each completion's first token."""


class Mine(TokenWeighting):
    name = "mine"
    options = MineOptions
    metric_kinds = {"mine/weight": "mean", "mine/entropy": "max"}

    def __init__(self, config):
        self.strength = config.mine_strength

    def weights(self, given):
        weights = given.logprobs.mask.float()
        weights[:, 0] = self.strength
        return TokenWeights(weights)

    def metrics(self, scored, frame_times):
        return {"mine/weight": scored.weights[:, 0].tolist(), "mine/entropy": [0.25]}


register_token_weighting(Mine)


def size(completion, **_):
    return len(completion)
'''


@pytest.mark.heavy
@pytest.mark.slow
def test_a_weighting_of_the_users_own_brings_its_options_and_metrics(
    tmp_path: Path, repository: Path
) -> None:
    world = render_questions(tmp_path / "world")
    (tmp_path / "mine.py").write_text(PLUGIN)
    rewards = ["--reward", "mine.py:size", "perception:mine.py:size=0"]
    more = ["--plugin", "mine.py", *rewards, "--max-steps", "1", "--mine-strength", "2"]
    words = rl_command(world, tmp_path / "out", *more, algo="pa-grpo+mine")
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert (line["mine/weight"], line["mine/entropy"]) == (2.0, 0.25)
    assert "appo/weight" not in line
    for each in rollouts_of_step(tmp_path / "out", 1):
        assert each["weights"] == [2.0, *[1.0] * (each["num_tokens"] - 1)]
    shown = " ".join(run_rl([*words, "--help"], tmp_path, repository).stdout.split())
    assert "--mine-strength X Weight of each completion's first token. (default: 1.5)" in shown
    assert "each also with +appo or +mine behind it" in shown
    wrong = run_rl([*words, "--mine-strength", "0"], tmp_path, repository)
    assert wrong.returncode == 2
    assert "--mine-strength" in wrong.stderr


@pytest.mark.heavy
@pytest.mark.slow
def test_a_weighting_that_fails_stops_training_with_a_sentence_and_a_checkpoint(
    tmp_path: Path, repository: Path
) -> None:
    """In the second step: its factors become infinite."""
    world = render_questions(tmp_path / "world")
    result = "        return TokenWeights(weights)\n"
    assert PLUGIN.count(result) == 1
    growing = PLUGIN.replace(
        result,
        "        self.questions = [*getattr(self, 'questions', ()), given.group.question]\n"
        "        if len(self.questions) > GROUPS:\n"
        "            weights[:, 0] = float('inf')\n" + result,
    )
    (tmp_path / "mine.py").write_text(growing + "\n\nGROUPS = 2\n")
    more = ["--plugin", "mine.py", "--reward", "mine.py:size", "--max-steps", "3"]
    words = rl_command(world, tmp_path / "out", *more, algo="grpo+mine")
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 3, done.stderr[-3000:]
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("stopped at step")]
    assert sentence.startswith("stopped at step 1: the token weighting mine must give a finite")
    assert "with non-finite ones" in sentence
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "checkpoint-1" / "trainer_state.json").is_file()
