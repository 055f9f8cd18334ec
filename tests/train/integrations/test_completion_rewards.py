"""Completions of another trainer earn what they earn in `train.rl`, from the same judge."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.judged_groups import OTHER, QUESTION, RULES, asked, text_of
from helpers.rollout_scenes import tokenizer
from servers.model_server import RunningServer

from cli.config import UsageError
from schemas.ledger.ledger import Ledger
from schemas.runs import start_run
from train.integrations.completion_rewards import (
    CompletionRewarder,
    question_column,
    question_of,
    read_reward_options,
    shared_rewarder,
)
from train.rewards.judge_health import JudgeUnavailableError

pytestmark = pytest.mark.heavy

FAST = (0.001, 0.002)
COUNTED = {"perception_tokens": [1, 30], "reasoning_tokens": [1, 60]}


def options_of(server: RunningServer, folder: Path, **more: Any) -> dict[str, Any]:
    judge = {"judge": f"openai:judge@{server.openai_url}", "retries": 1}
    return {"output_dir": folder / "rewards", "judge_pause_seconds": 0.01, **judge, **more}


def opened(server: RunningServer, folder: Path, **more: Any) -> CompletionRewarder:
    options = read_reward_options(options_of(server, folder, **{"length_weight": 0, **more}))
    return CompletionRewarder(options, retry_seconds=FAST)


def test_yes_no_missing_claimed_and_malformed_are_five_different_things(
    model_server: RunningServer, tmp_path: Path
) -> None:
    model_server.control(replies=RULES)
    texts = [
        text_of("the box slides: ok"),
        text_of("poor"),
        text_of("mute", "C"),
        text_of("The box slides, so the answer is B."),
        "<observation>never closed <think>so B</think><answer>B</answer>",
    ]
    with opened(model_server, tmp_path) as rewarder:
        rewards = rewarder.rewards([QUESTION] * 5, texts)
    totals = [reward.perception and reward.perception.total for reward in rewards]
    assert totals[:2] == [2.0, 1.0]
    assert math.isnan(totals[2] or 0)
    assert totals[3:] == [1.0, 0.0]
    assert [reward.reasoning.total for reward in rewards] == [2.0, 2.0, 1.0, 2.0, 2.0]
    assert [r.total for r in rewards if not math.isnan(r.total)] == [4.0, 3.0, 3.0, 2.0]
    assert math.isnan(rewards[2].total)
    assert [r.verdict and r.verdict.verdict for r in rewards] == [
        *("yes", "no", "unscored"),
        *(None, None),
    ]


def test_what_one_run_has_asked_the_next_one_reads_from_the_ledger(
    model_server: RunningServer, tmp_path: Path
) -> None:
    model_server.control(replies=RULES)
    for _ in range(2):
        with opened(model_server, tmp_path) as rewarder:
            (reward,) = rewarder.rewards([QUESTION], [text_of("ok")])
            assert reward.total == 4.0
    assert asked(model_server) == 2 + 1  # each run first asks whether the judge is there
    run = start_run("tests", {})
    with Ledger.open(tmp_path / "rewards" / "judge-0.duckdb", run) as ledger:
        assert ledger.query("SELECT verdict FROM sufficiency_verdicts") == [("yes",)]


def test_two_processes_have_a_ledger_each(model_server: RunningServer, tmp_path: Path) -> None:
    model_server.control(replies=RULES)
    with opened(model_server, tmp_path) as one, opened(model_server, tmp_path) as other:
        assert one.rewards([QUESTION], [text_of("ok")])[0].total == 4.0
        assert other.rewards([OTHER], [text_of("poor")])[0].total == 3.0
    names = sorted(path.name for path in (tmp_path / "rewards").glob("judge-*.duckdb"))
    assert names == ["judge-0.duckdb", "judge-1.duckdb"]


def test_many_threads_get_each_their_own(model_server: RunningServer, tmp_path: Path) -> None:
    """As verl asks: one completion at a time, from many places at once."""
    model_server.control(replies=RULES)
    words = [f"{'ok' if number % 2 else 'poor'} {number}" for number in range(24)]
    with opened(model_server, tmp_path) as rewarder, ThreadPoolExecutor(12) as threads:
        rewards = list(
            threads.map(lambda word: rewarder.rewards([QUESTION], [text_of(word)])[0], words)
        )
    assert [reward.total for reward in rewards] == [4.0 if i % 2 else 3.0 for i in range(24)]


def test_a_judge_that_stays_down_stops_and_is_no_zero(
    model_server: RunningServer, tmp_path: Path
) -> None:
    model_server.control(replies=RULES)
    with opened(model_server, tmp_path, judge_pauses=1) as rewarder:
        model_server.control(script=[{"match": "### Observations", "faults": ["overloaded"] * 99}])
        with pytest.raises(JudgeUnavailableError, match="given up after 1 pauses"):
            rewarder.rewards([QUESTION] * 2, [text_of("ok"), text_of("poor")])


def test_sampled_tokens_decide_over_text_and_are_counted(
    model_server: RunningServer, tmp_path: Path
) -> None:
    model_server.control(replies=RULES)
    options = read_reward_options(options_of(model_server, tmp_path, **COUNTED))
    text = text_of("the box slides: ok")
    ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
    with CompletionRewarder(options, tokenizer=tokenizer()) as rewarder:
        (sampled,) = rewarder.rewards([QUESTION], ["what nobody wrote"], [ids])
        (read,) = rewarder.rewards([QUESTION], [text])
        (empty,) = rewarder.rewards([QUESTION], [""], [[]])
    assert sampled.perception is not None
    assert (sampled.perception.length, sampled.reasoning.length) == (0.2, 0.2)
    assert sampled.total == read.total == pytest.approx(4.4)
    assert empty.total == 0.0
    assert len(sampled.segment_ids) == len(ids)
    boundary = len(tokenizer()(text.split(" <think>")[0], add_special_tokens=False)["input_ids"])
    assert int((sampled.segment_ids == 1).sum()) == boundary


def test_rewards_by_name_and_without_a_judge(tmp_path: Path) -> None:
    words = ["accuracy", "format=0.5", "perception:format"]
    options = read_reward_options({"output_dir": tmp_path, "reward": words})
    with CompletionRewarder(options) as rewarder:
        (reward,) = rewarder.rewards([QUESTION], [text_of("ok")])
    assert (reward.reasoning.total, reward.perception and reward.perception.total) == (1.5, 1.0)
    assert reward.named == {"accuracy": 1.0, "format": 1.0, "perception:format": 1.0}
    assert not list(tmp_path.glob("judge-*"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "there is no tokenizer; give one"),
        ({"reward": ["length"]}, "there is no tokenizer; give one"),
        ({"reward": ["sufficient"]}, "needs a verdict, but there is no judge"),
        ({"reward": ["next-gqa-tiou"]}, "needs the duration of a question's video"),
        ({"length_weight": 0, "judge": "openai:judge@http://127.0.0.1:1/v1"}, "127.0.0.1:1"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_sentence(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    read = read_reward_options({"output_dir": tmp_path, "retries": 0, **options})
    with pytest.raises(UsageError, match=sentence):
        CompletionRewarder(read, retry_seconds=FAST)


def test_options_come_from_a_file_and_the_process_has_one_rewarder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("P2R_REWARDS", raising=False)
    with pytest.raises(UsageError, match="P2R_REWARDS is not set"):
        shared_rewarder()
    path = tmp_path / "rewards.yaml"
    path.write_text(f"output-dir: {tmp_path / 'out'}\nreward: [accuracy]\n")
    monkeypatch.setenv("P2R_REWARDS", str(path))
    rewarder = shared_rewarder()
    assert rewarder is shared_rewarder(str(path))
    assert rewarder.rewards([QUESTION], [text_of("ok", "C")])[0].total == 0.0
    path.write_text("outputdir: x\n")
    with pytest.raises(UsageError, match="did you mean 'output-dir'"):
        read_reward_options(path)


def test_a_question_survives_its_column_and_what_is_none_is_named() -> None:
    assert question_of(question_column(QUESTION)) == QUESTION
    assert question_of(QUESTION.model_dump(mode="json")) == QUESTION
    for value in ("{}", '{"problem": "?"', None, 7):
        with pytest.raises(UsageError, match="which is no question"):
            question_of(value)
