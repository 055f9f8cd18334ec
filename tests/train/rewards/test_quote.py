"""The quote of a run's judge: counted by hand, and against the ledger of what was then asked."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.rollout_scenes import P2R, written
from helpers.tiny_rl import read_metrics, render_questions, rl_command, rollouts_of_step, run_rl
from servers.model_server import RunningServer

from cli.config import UsageError
from schemas.ledger.file import reading
from schemas.questions import VideoQuestion
from schemas.traces import segment_spans
from train.rewards.judge_client import JudgeClient
from train.rewards.options import JudgeCallOptions
from train.rewards.quote import (
    JudgeHabits,
    RunLength,
    habits_by_options,
    habits_of_run,
    judge_quote,
)

World = tuple[Path, list[VideoQuestion]]
SAYS_YES = [{"contains": "### Observations", "reply": "It fits well. <judgement>Yes</judgement>"}]
PRICES = "[openai.judge]\ninput = 2.0\noutput = 10.0\n"


@pytest.mark.parametrize(
    ("trl", "questions", "steps", "rollouts"),
    [
        # 2 questions of 8 completions a generation, learned from in 2 micro-batches: one step
        ({"max_steps": 10}, 20, 10, 160),
        ({"num_train_epochs": 2}, 20, 20, 320),
        ({}, 21, 30, 480),  # three epochs of ten generations; the odd question waits
        ({"num_iterations": 2, "num_train_epochs": 1}, 20, 20, 160),
    ],
)
def test_steps_and_rollouts_are_counted_by_hand(
    trl: dict[str, float], questions: int, steps: int, rollouts: int
) -> None:
    given = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, **trl}
    length = RunLength(given, prompts_per_generation=2, group_size=8, num_processes=1)
    assert (length.steps(questions), length.rollouts(steps)) == (steps, rollouts)


def test_observations_are_assumed_as_long_as_is_paid_for() -> None:
    assert habits_by_options((128, 320), has_length_bonus=True).observation_tokens == 224
    assert habits_by_options((128, 320), has_length_bonus=False).observation_tokens == 100


def judged_run(
    folder: Path, world: World, server: RunningServer, questions: Sequence[VideoQuestion]
) -> tuple[int, float]:
    """Judge four rollouts of each question, as a run does. -> How many those were, and dollars."""
    folder.mkdir()
    prices = folder / "prices.toml"
    prices.write_text(PRICES)
    options = JudgeCallOptions(prices=prices)
    spec = f"openai:judge@{server.openai_url}"
    ledger = folder / "judge-0.duckdb"
    rollouts = 0
    with JudgeClient(spec, ledger_path=ledger, media_root=world[0], options=options) as judge:
        for question in questions:
            texts = written(world[0], question, 4, teacher="oracle:3,insufficient=0.4")
            rollouts += len(texts)
            asked = []
            for text in texts:
                (span,) = [one for one in segment_spans(text, P2R) if one.tag == "observation"]
                observation = text[span.inner_start : span.inner_end]
                asked.append(judge.submit(question, observation, output=text))
            for future in asked:
                future.result()
    with reading(ledger) as connection:
        ((dollars,),) = connection.execute("SELECT sum(cost_usd) FROM calls").fetchall()
    return rollouts, dollars


@pytest.mark.heavy
def test_a_pilot_makes_a_quote_that_the_ledger_of_the_run_agrees_with(
    tmp_path: Path, judged_world: World, model_server: RunningServer
) -> None:
    model_server.control(replies=SAYS_YES)
    questions = judged_world[1]
    half = len(questions) // 2
    pilot, _ = judged_run(tmp_path / "pilot", judged_world, model_server, questions[:half])
    rollouts, paid = judged_run(tmp_path / "run", judged_world, model_server, questions)
    options = JudgeCallOptions(prices=tmp_path / "run/prices.toml")
    quote = judge_quote(
        f"openai:judge@{model_server.openai_url}",
        options,
        questions,
        habits_of_run(tmp_path / "pilot", pilot),
        rollouts=rollouts,
        steps=len(questions),
        media_root=judged_world[0],
    )
    assert paid > 0
    assert quote.estimate.usd == pytest.approx(paid, rel=0.15)
    assert f"{rollouts:,} rollouts" in quote.text()


@pytest.mark.heavy
def test_without_a_pilot_requests_about_the_runs_own_questions_are_counted(
    tmp_path: Path, judged_world: World, model_server: RunningServer
) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    options = JudgeCallOptions(prices=tmp_path / "prices.toml")
    questions = judged_world[1]
    spec = f"openai:judge@{model_server.openai_url}"

    def quoted(habits: JudgeHabits) -> float:
        quote = judge_quote(
            spec, options, questions, habits, rollouts=100, steps=10, media_root=judged_world[0]
        )
        assert quote.estimate.usd is not None
        return quote.estimate.usd

    short, long = (quoted(JudgeHabits(observation_tokens=length)) for length in (100, 300))
    # 100 calls with 200 words more each: one to two tokens a word, $2 a million
    assert 100 * 200 * 2e-6 <= long - short <= 100 * 400 * 2e-6
    half = quoted(JudgeHabits(calls_per_rollout=0.5))
    assert half == pytest.approx(quoted(JudgeHabits()) / 2)


def test_a_pilot_that_asked_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--pilot .* has asked no judge"):
        habits_of_run(tmp_path, 8)


def test_a_price_above_the_budget_is_said(tmp_path: Path, judged_world: World) -> None:
    quote = judge_quote(
        "claude:claude-haiku-5-5",
        JudgeCallOptions(),
        judged_world[1],
        JudgeHabits(request_tokens=1000, verdict_tokens=100),
        rollouts=1000,
        steps=10,
        media_root=judged_world[0],
    )
    assert quote.estimate.usd == pytest.approx(0.15)  # 1000 x (1000 x $0.1 + 100 x $0.5) / 10^6
    assert "more than --max-cost-usd 0.1" in quote.text(max_cost_usd=0.1)
    assert "--max-cost-usd" not in quote.text(max_cost_usd=1)


@pytest.mark.slow
@pytest.mark.heavy
def test_a_dry_run_counts_the_steps_and_rollouts_that_the_run_then_takes(
    tmp_path: Path, repository: Path
) -> None:
    world = render_questions(tmp_path / "world")
    more = (
        "--num-train-epochs",
        "0.5",
        "--judge",
        "oracle:0",
        "--gradient-accumulation-steps",
        "2",
    )
    words = rl_command(world, tmp_path / "out", *more, algo="pa-grpo")
    quoted = run_rl([*words, "--dry-run"], tmp_path, repository)
    assert quoted.returncode == 0, quoted.stderr
    assert "judge oracle:0: 24 calls for 24 rollouts in 2 steps" in quoted.stdout
    assert "$0.0000" in quoted.stdout
    assert not (tmp_path / "out").exists()
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "out/metrics.jsonl")[-1]["step"] == 2
    assert sum(len(rollouts_of_step(tmp_path / "out", step)) for step in (1, 2)) == 24
