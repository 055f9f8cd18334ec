"""Rewards of the user's own, from files that the product knows nothing of."""

import math
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_rl import read_metrics, render_questions, rl_command, rollouts_of_step, run_rl
from safetensors.torch import load_file
from torch import Tensor

REWARDS = '''
import asyncio


def brevity(completion, **_):
    """Plain; a number."""
    return 1.0 / (1 + len(completion))


async def asked(question, completion, frame_times, **_):
    """Async; missing for every other completion, by its length."""
    await asyncio.sleep(0.01)
    assert len(frame_times) == 3 and question.problem
    return len(completion) % 3 if len(completion) % 2 else None


def seen(trace, verdict, segment, **_):
    """Of the observation: no completion of a random model has one."""
    assert verdict is None and segment == "perception"
    return trace is not None
'''
BROKEN = """
calls = 0


def broken(completion, **_):
    global calls
    calls += 1
    if calls > 6:
        raise RuntimeError("the scorer is out of paper")
    return len(completion)
"""
NAMED = """
from train.rewards.registry import reward


@reward("tidy", needs={"verdict"}, term="format")
def whatever(completion, **_):
    return "<" not in completion
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_questions(tmp_path_factory.mktemp("world"))


def trained(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.heavy
def test_functions_of_a_file_reward_both_segments_and_move_the_weights(
    world: Path, tmp_path: Path, repository: Path
) -> None:
    """Plain and async, with missing values, without a judge. The sign of a weight decides where
    the model goes."""
    (tmp_path / "mine.py").write_text(REWARDS)
    others = ["mine.py:asked=0.1", "perception:mine.py:seen"]
    for name, weight in (("short", "1"), ("long", "-1")):
        words = rl_command(
            world,
            tmp_path / name,
            *("--reward", f"mine.py:brevity={weight}", *others, "--max-steps", "1"),
            algo="pa-grpo",
        )
        done = run_rl(words, tmp_path, repository)
        assert done.returncode == 0, done.stderr[-3000:]
    (line,) = read_metrics(tmp_path / "short" / "metrics.jsonl")
    rollouts = rollouts_of_step(tmp_path / "short", 1)
    for name in ("brevity", "asked", "seen"):
        values = [each["rewards"]["named"][name] for each in rollouts]
        assert values == [expected(name, each["text"]) for each in rollouts]
        present = [value for value in values if value is not None]
        assert line[f"rewards/{name}"] == pytest.approx(math.fsum(present) / len(present))
    for each in rollouts:
        named, rewards = each["rewards"]["named"], each["rewards"]
        total = None if named["asked"] is None else named["brevity"] + 0.1 * named["asked"]
        assert rewards["reasoning"]["total"] == (None if total is None else pytest.approx(total))
        assert rewards["perception"]["total"] == named["seen"] == 0
    assert {each["rewards"]["named"]["asked"] is None for each in rollouts} == {True, False}
    short, long = trained(tmp_path / "short"), trained(tmp_path / "long")
    assert any(not short[name].equal(long[name]) for name in short)


def expected(name: str, text: str) -> Any:
    if name == "brevity":
        return 1.0 / (1 + len(text))
    if name == "seen":
        return 0.0
    return len(text) % 3 if len(text) % 2 else None


@pytest.mark.heavy
@pytest.mark.slow
def test_a_function_that_fails_stops_training_with_a_sentence_and_a_checkpoint(
    world: Path, tmp_path: Path, repository: Path
) -> None:
    """In the second step, of six rollouts each: never a silent 0."""
    (tmp_path / "mine.py").write_text(BROKEN)
    words = rl_command(
        world, tmp_path / "out", "--reward", "mine.py:broken", "--max-steps", "3", algo="grpo"
    )
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 3, done.stderr[-3000:]
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("stopped at step")]
    assert sentence.startswith("stopped at step 1: the reward broken of question ")
    assert sentence.endswith("raised RuntimeError (mine.py, line 9): the scorer is out of paper")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "checkpoint-1" / "trainer_state.json").is_file()


@pytest.mark.heavy
@pytest.mark.slow
def test_a_reward_of_a_plugin_has_a_name_needs_and_a_place_in_the_help(
    world: Path, tmp_path: Path, repository: Path
) -> None:
    """It is refused for what it needs before the model, a folder without one, is read."""
    (tmp_path / "mine.py").write_text(NAMED)
    more = ["--plugin", "mine.py", "--reward", "tidy", "--model", "."]
    words = rl_command(world, tmp_path / "out", *more, algo="grpo")
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 2
    assert "--reward tidy needs the judge's verdict: give --judge" in done.stderr
    shown = run_rl([*words, "--help"], tmp_path, repository)
    assert shown.returncode == 0
    assert "think-length, tidy, time-iou" in " ".join(shown.stdout.split())
