"""Reward functions at work: what they are given, what they may return, what stops training."""

import asyncio
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.judged_groups import LIMITS, OTHER, QUESTION, RULES, group_of, open_judge, text_of
from helpers.rollout_scenes import P2R, rollout_group
from servers.model_server import RunningServer

from schemas.samples import Sufficiency
from schemas.traces import TEMPLATES, Trace
from train.rewards.background_loop import BackgroundLoop
from train.rewards.group_rewarder import GroupRewarder, RewardError
from train.rewards.judge_client import JudgeClient
from train.rewards.plan import NamedReward, RewardPlan, read_rewards
from train.rewards.registry import ARGUMENTS, Reward
from train.rollouts.types import GroupRewards, RolloutGroup


def plan(*functions: Callable[..., Any], segment: Any = "reasoning", **more: Any) -> RewardPlan:
    named = tuple(
        NamedReward(Reward(each.__name__, each, **more), segment, label=each.__name__)
        for each in functions
    )
    return RewardPlan(frozenset(), named)


def rewarded(
    *functions: Callable[..., Any], groups: list[RolloutGroup] | None = None, **more: Any
) -> list[GroupRewards]:
    rewarder = GroupRewarder(
        P2R, LIMITS, None, plan=plan(*functions), frame_times=lambda question: [0.5, 1.5], **more
    )
    try:
        return rewarder.start(groups or [group_of("ok", "poor")]).wait()
    finally:
        rewarder.close()


@pytest.fixture
def judge(model_server: RunningServer, tmp_path: Path) -> Iterator[JudgeClient]:
    model_server.control(replies=RULES)
    with open_judge(model_server, tmp_path) as opened:
        yield opened


def test_a_function_is_given_what_it_names() -> None:
    seen: list[dict[str, Any]] = []

    def mine(question: Any, completion: str, trace: Any, frame_times: Any, **more: Any) -> float:
        seen.append({"question": question, "text": completion, "trace": trace, **more})
        assert frame_times == [0.5, 1.5]
        return 1.0

    texts = [text_of("it slides"), "<observation>never closed"]
    (rewards,) = rewarded(mine, groups=[rollout_group(QUESTION, texts)])
    assert [each["text"] for each in seen] == texts
    assert [type(each["trace"]) for each in seen] == [Trace, type(None)]
    assert seen[0]["trace"].get("observation") == "it slides"
    assert seen[0]["token_counts"]["answer"] == 1
    assert {each["question"] for each in seen} == {QUESTION}
    assert set(seen[0]) == {"question", "text", "trace"} | {
        "token_counts",
        "segment",
        "template",
        "settings",
    }
    assert rewards.named == {"mine": (1.0, 1.0)}
    assert [reward.total for reward in rewards.reasoning] == [1.0, 1.0]
    assert [reward.accuracy for reward in rewards.reasoning] == [1.0, 0.0], "for APPO and metrics"
    assert rewards.perception is None


def test_a_need_stands_for_the_argument_of_that_name() -> None:
    def takes_all(**given: Any) -> float:
        return 0.0

    def read(*needs: Any) -> set[str]:
        entry = Reward("takes_all", takes_all, frozenset(needs))
        return {name for name in ARGUMENTS if entry.reads(name)}

    at_hand = set(ARGUMENTS) - {"verdict", "frame_times", "duration_seconds"}
    assert read() == at_hand
    assert read("verdict") == at_hand | {"verdict"}
    assert read("duration", "time_clues") == at_hand | {"duration_seconds"}
    assert not Reward("takes_all", takes_all).waits_for_verdict


def test_numbers_of_all_kinds_and_missing_ones() -> None:
    given = [True, 2, Fraction(1, 2), np.float32(0.25), np.int64(3), None]
    texts = [f"ok {number}" for number in range(len(given))]

    def kinds(completion: str, **_: Any) -> Any:
        return given[next(n for n, text in enumerate(texts) if text in completion)]

    (rewards,) = rewarded(kinds, groups=[group_of(*texts)])
    assert rewards.named["kinds"][:-1] == (1.0, 2.0, 0.5, 0.25, 3.0)
    assert math.isnan(rewards.named["kinds"][-1])
    assert math.isnan(rewards.reasoning[-1].total)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "high", [1.0], 1j])
def test_what_is_no_number_stops_training(bad: object) -> None:
    def broken(**_: Any) -> object:
        return bad

    with pytest.raises(
        RewardError, match=r"the reward broken of question .* returned .*; return a"
    ):
        rewarded(broken)


def test_an_error_names_the_reward_the_question_and_the_line() -> None:
    async def failing(completion: str, **_: Any) -> float:
        return {"ok": 1.0}[completion]

    with pytest.raises(RewardError) as error:
        rewarded(failing)
    words = str(error.value)
    assert f"the reward failing of question {QUESTION.question_id} (row {QUESTION.row})" in words
    assert "raised KeyError (test_reward_calls.py, line" in words
    assert "\n" not in words


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, StopIteration])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_would_end_the_thread_stops_training(
    kind: type[BaseException], is_async: bool
) -> None:
    def failing(**_: Any) -> float:
        raise kind("enough")

    async def later(**_: Any) -> float:
        raise kind("enough")

    with pytest.raises(RewardError, match=r"the reward \w+ of .* raised (Sys|Key|\w*Stop|Run)"):
        rewarded(later if is_async else failing)


class Scorer:
    def __call__(self, **_: Any) -> float:
        raise KeyError("gone")


@pytest.mark.parametrize(
    "function", [Scorer(), functools.partial(Scorer()), functools.partial(int, "x")]
)
def test_what_can_be_called_without_being_a_function_is_named_too(function: Any) -> None:
    named = NamedReward(Reward("scorer", lambda **_: 0.0), label="scorer")
    object.__setattr__(named.reward, "function", function)
    rewarder = GroupRewarder(P2R, LIMITS, None, plan=RewardPlan(frozenset(), (named,)))
    with pytest.raises(RewardError, match=r"the reward scorer of question .* raised \w+Error \("):
        rewarder.start([group_of("ok")]).wait()
    rewarder.close()


def test_an_infinite_sum_stops_training() -> None:
    def large(**_: Any) -> float:
        return 1e308

    more = RewardPlan(frozenset(), (NamedReward(Reward("large", large), weight=10, label="large"),))
    rewarder = GroupRewarder(P2R, LIMITS, None, plan=more)
    with pytest.raises(RewardError, match="the weighted sum of the rewards of reasoning of quest"):
        rewarder.start([group_of("ok")]).wait()
    rewarder.close()


def test_a_blocked_reward_is_named_and_does_not_keep_a_run_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("train.rewards.reward_calls._LONG_SECONDS", 0.1)
    monkeypatch.setattr("train.rewards.background_loop._JOIN_SECONDS", 0.2)
    begun, release = threading.Event(), threading.Event()

    def blocked(**_: Any) -> float:
        begun.set()
        release.wait()
        return 1.0

    rewarder = GroupRewarder(P2R, LIMITS, None, plan=plan(blocked))
    pending = rewarder.start([group_of("ok", "poor")])
    threading.Timer(0.5, release.set).start()
    with caplog.at_level(logging.WARNING):
        assert pending.wait()[0].named["blocked"] == (1.0, 1.0)
    (record,) = [each for each in caplog.records if "waiting for" in each.message]
    assert f"the reward blocked of question {QUESTION.question_id}" in record.message
    begun.clear()
    release.clear()
    rewarder.start([group_of("ok")])
    assert begun.wait(30)  # work that has not begun is cancelled, and blocks nothing
    began = time.monotonic()
    rewarder.close()
    assert time.monotonic() - began < 5
    release.set()


def test_closing_a_loop_cancels_what_still_runs() -> None:
    cancelled = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    loop = BackgroundLoop("test")
    loop.start(forever())
    loop.run(asyncio.sleep(0))
    loop.close()
    assert cancelled.is_set()
    assert loop.is_closed
    loop.close()


def test_a_process_stops_when_another_ones_reward_fails() -> None:
    def fine(**_: Any) -> float:
        return 1.0

    with pytest.raises(RewardError, match="in another process"):
        rewarded(fine, sum_over_processes=lambda values: [value + 1 for value in values])


def test_async_functions_run_side_by_side_and_while_training_goes_on() -> None:
    """24 calls of 0.2 s; functions share a thread that is not the trainer's."""
    threads: set[int] = set()

    async def slow(**_: Any) -> float:
        threads.add(threading.get_ident())
        await asyncio.sleep(0.2)
        return 1.0

    def quick(**_: Any) -> float:
        threads.add(threading.get_ident())
        return 1.0

    rewarder = GroupRewarder(P2R, LIMITS, None, plan=plan(slow, quick))
    pending = rewarder.start([group_of(*(f"ok {n}" for n in range(24)))])
    time.sleep(0.6)
    began = time.monotonic()
    (rewards,) = pending.wait()
    assert time.monotonic() - began < 0.15
    assert rewards.named["slow"] == rewards.named["quick"] == (1.0,) * 24
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    rewarder.close()


def test_a_function_that_names_the_verdict_waits_for_it(judge: JudgeClient) -> None:
    """Three verdicts, and none where the observation claims the answer or is malformed."""
    seen: list[Sufficiency | None] = []

    def judged(verdict: Sufficiency | None, **_: Any) -> float | None:
        seen.append(verdict)
        return None if verdict is None else float(verdict.verdict == "yes")

    leak = "The box slides, so the answer is B."
    texts = [text_of("ok"), text_of("poor"), text_of("mute"), text_of(leak), "nothing"]
    rewarder = GroupRewarder(P2R, LIMITS, judge, plan=plan(judged, segment="perception"))
    (rewards,) = rewarder.start([rollout_group(QUESTION, texts)]).wait()
    rewarder.close()
    assert [verdict and verdict.verdict for verdict in seen] == [
        "yes",
        "no",
        "unscored",
        None,
        None,
    ]
    assert rewards.perception is not None
    totals = [reward.total for reward in rewards.perception]
    assert totals[:3] == [1.0, 0.0, 0.0]
    assert all(math.isnan(total) for total in totals[3:])
    accuracies = [reward.accuracy for reward in rewards.perception]
    assert accuracies[:2] + accuracies[3:] == [1.0, 0.0, 0.0, 0.0]
    assert math.isnan(accuracies[2])


def test_shipped_names_are_the_terms_of_the_default_reward(judge: JudgeClient) -> None:
    words = ["accuracy", "format", "length"]
    words += ["perception:sufficient", "perception:format", "perception:length"]
    texts = [text_of("ok"), text_of("poor", "C"), text_of("mute"), "<observation>never closed"]
    groups = [rollout_group(QUESTION, texts), rollout_group(OTHER, texts[:2])]
    named = GroupRewarder(P2R, LIMITS, judge, plan=read_rewards(words, P2R))
    found = named.start(groups).wait()
    named.close()
    expected = GroupRewarder(P2R, LIMITS, judge).start(groups).wait()
    for ours, default in zip(found, expected, strict=True):
        assert ours.reasoning == default.reasoning
        assert repr(ours.perception) == repr(default.perception)  # NaN equals itself there
        assert ours.verdicts == default.verdicts
        assert set(ours.named) == {*words[:3], "sufficient", *words[4:]}


def test_default_beside_a_function_adds_to_it() -> None:
    def bonus(completion: str, **_: Any) -> float:
        return 0.5

    default = GroupRewarder(P2R, LIMITS, None).start([group_of("ok")]).wait()[0].reasoning[0]
    beside = RewardPlan(named=plan(bonus).named)
    rewarder = GroupRewarder(P2R, LIMITS, None, plan=beside)
    (rewards,) = rewarder.start([group_of("ok")]).wait()
    rewarder.close()
    assert rewards.reasoning[0].total == default.total + 0.5
    assert rewards.reasoning[0].accuracy == default.accuracy


def test_parts_that_do_not_fit_are_refused() -> None:
    def timed(frame_times: Any, **_: Any) -> float:
        return 0.0

    with pytest.raises(ValueError, match="the reward timed needs the frame times"):
        GroupRewarder(P2R, LIMITS, None, plan=plan(timed))
    with pytest.raises(ValueError, match="the reward timed needs a verdict, but there is no judge"):
        GroupRewarder(
            P2R, LIMITS, None, plan=plan(timed, needs=frozenset({"verdict"})), frame_times=list
        )
    perception = plan(timed, segment="perception")
    with pytest.raises(ValueError, match="no perception segment"):
        GroupRewarder(TEMPLATES["think-answer"], LIMITS, None, plan=perception, frame_times=list)
