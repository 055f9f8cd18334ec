"""A judge that is down, mute or out of budget: retried for a while, then training stops."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from helpers.judged_groups import LIMITS, RULES, asked, group_of, open_judge
from helpers.rollout_scenes import P2R
from servers.model_server import RunningServer, running_server

from train.rewards.group_rewarder import GroupRewarder, JudgePatience, JudgeUnavailableError
from train.rewards.judge_client import JudgeClient
from train.rollouts.types import RolloutGroup

pytestmark = pytest.mark.heavy


@pytest.fixture
def judge(model_server: RunningServer, tmp_path: Path) -> Iterator[JudgeClient]:
    model_server.control(replies=RULES)
    with open_judge(model_server, tmp_path) as opened:
        yield opened


def steps(server: RunningServer, *faults: str) -> None:
    """The server's fault for each further observation that says `offline`."""
    server.control(script=[{"match": "offline", "faults": list(faults)}])


def test_a_few_missing_replies_are_missing_and_do_not_stop_the_step(
    judge: JudgeClient, model_server: RunningServer
) -> None:
    steps(model_server, *["bad_request"] * 9)
    observations = ["offline", *(f"ok {number}" for number in range(5))]
    patience = JudgePatience(pause_seconds=0.01)
    rewarder = GroupRewarder(P2R, LIMITS, judge, patience=patience)
    pending = rewarder.start([group_of(*observations)])
    (rewards,) = pending.wait()
    assert rewards.perception is not None
    assert [math.isnan(one.total) for one in rewards.perception] == [True, *[False] * 5]
    assert (pending.use.missing, pending.use.asked) == (1, 6)
    assert pending.use.pauses == 0


def test_a_judge_that_comes_back_is_waited_for(
    judge: JudgeClient, model_server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    steps(model_server, *["bad_request"] * 4)  # each of two observations fails in two rounds
    patience = JudgePatience(pause_seconds=0.05, max_pauses=3)
    rewarder = GroupRewarder(P2R, LIMITS, judge, patience=patience)
    pending = rewarder.start([group_of("offline 1", "offline 2", "ok", "poor")])
    began = time.monotonic()
    (rewards,) = pending.wait()
    assert [one.accuracy for one in rewards.perception or ()] == [1, 1, 1, 0]
    assert (pending.use.missing, pending.use.pauses) == (0, 2)
    assert 0.15 <= pending.use.seconds_waited <= time.monotonic() - began
    told = [record.getMessage() for record in caplog.records]
    assert ["pausing for 0.05 s" in one for one in told] == [True, False]
    assert "pausing for 0.1 s, then asking again (2 of 3)" in told[1]
    assert "2 of 4 observations of a step, more than 20%" in told[0]
    assert "refused by script" in told[0]


def test_an_outage_leaves_what_earlier_steps_learned_with(
    judge: JudgeClient, model_server: RunningServer
) -> None:
    """A run that resumes before both steps repeats the first with the verdict still missing."""
    early = group_of("offline early", *(f"ok {number}" for number in range(5)))
    late = group_of("offline late", "ok", "poor")
    steps(model_server, "bad_request")
    rewarder = GroupRewarder(P2R, LIMITS, judge, patience=JudgePatience(pause_seconds=0.01))
    first = rewarder.start([early]).wait()
    model_server.control(script=[{"match": "offline late", "faults": ["bad_request"]}])
    pending = rewarder.start([late])
    (rewards,) = pending.wait()
    assert pending.use.pauses == 1
    assert [one.accuracy for one in rewards.perception or ()] == [1, 1, 0]
    asked_before = asked(model_server)
    again = rewarder.start([early]).wait()
    assert [verdict and verdict.verdict for verdict in again[0].verdicts] == [
        verdict and verdict.verdict for verdict in first[0].verdicts
    ]
    assert again[0].verdicts[0] is not None
    assert again[0].verdicts[0].verdict == "unscored"
    assert asked(model_server) == asked_before


def test_a_judge_that_stays_down_stops_training_and_a_resumed_run_asks_again(
    model_server: RunningServer, tmp_path: Path
) -> None:
    model_server.control(replies=RULES, rates={"unavailable": 1.0})
    patience = JudgePatience(pause_seconds=0.01, max_pauses=1)
    group = group_of(*(f"ok {number}" for number in range(4)))
    with open_judge(model_server, tmp_path) as judge:
        pending = GroupRewarder(P2R, LIMITS, judge, patience=patience).start([group])
        with pytest.raises(JudgeUnavailableError, match=r"4 of 4 .* given up after 1 pauses"):
            pending.wait()
        assert (pending.use.missing, pending.use.asked) == (4, 4)
        assert pending.use.stats.failures == 8
    model_server.control(rates={})
    with open_judge(model_server, tmp_path) as judge:
        pending = GroupRewarder(P2R, LIMITS, judge, patience=patience).start([group])
        (rewards,) = pending.wait()
        assert [one.accuracy for one in rewards.perception or ()] == [1, 1, 1, 1]
        assert pending.use.pauses == 0


def test_a_stop_ends_a_pause(model_server: RunningServer, tmp_path: Path) -> None:
    model_server.control(replies=RULES, rates={"unavailable": 1.0})
    stop = threading.Event()
    with open_judge(model_server, tmp_path) as judge:
        rewarder = GroupRewarder(P2R, LIMITS, judge, stop_requested=stop.is_set)
        pending = rewarder.start([group_of("ok", "poor")])
        threading.Timer(1.0, stop.set).start()
        began = time.monotonic()
        with pytest.raises(JudgeUnavailableError, match="a stop was asked for after 1 pauses"):
            pending.wait()
        assert time.monotonic() - began < 8  # the pause would take 10 s
    model_server.control(rates={})
    with open_judge(model_server, tmp_path) as judge:
        # a stop that is asked for while the judge is well changes nothing here
        rewarder = GroupRewarder(P2R, LIMITS, judge, stop_requested=stop.is_set)
        (rewards,) = rewarder.start([group_of("ok", "poor")]).wait()
        assert [one.accuracy for one in rewards.perception or ()] == [1, 0]


def test_a_refused_account_is_not_asked_for_ever(
    model_server: RunningServer, tmp_path: Path
) -> None:
    """The call layer stops itself there; it is opened anew for each round."""
    model_server.control(replies=RULES, rates={"unauthorized": 1.0})
    patience = JudgePatience(pause_seconds=0.01, max_pauses=1)
    with open_judge(model_server, tmp_path) as judge:
        rewarder = GroupRewarder(P2R, LIMITS, judge, patience=patience)
        with pytest.raises(JudgeUnavailableError, match="invalid x-api-key"):
            rewarder.start([group_of("ok", "poor")]).wait()
        model_server.control(rates={})
        (rewards,) = rewarder.start([group_of("ok", "poor")]).wait()
        assert [one.accuracy for one in rewards.perception or ()] == [1, 0]


def test_a_judge_that_says_nothing_readable_is_given_up_after_a_hundred_verdicts(
    judge: JudgeClient,
) -> None:
    rewarder = GroupRewarder(P2R, LIMITS, judge)
    for step in range(3):  # 75 % unreadable, of 24, 48, 72, 96 verdicts
        rewarder.start([mumbling(step)]).wait()
    rewarder.start([mumbling(3)]).wait()
    with pytest.raises(JudgeUnavailableError, match=r"replies, but 75% .*no_judgement"):
        rewarder.start([mumbling(4)]).wait()
    bearing = GroupRewarder(P2R, LIMITS, judge, patience=JudgePatience(max_missing_share=0.8))
    for step in range(6):
        bearing.start([mumbling(step)]).wait()


def mumbling(step: int) -> RolloutGroup:
    return group_of(*(f"{'ok' if n % 4 == 0 else 'mute'} {step} {n}" for n in range(24)))


def test_a_budget_that_is_used_up_stops_training(
    model_server: RunningServer, tmp_path: Path
) -> None:
    model_server.control(replies=RULES)
    prices = tmp_path / "prices.toml"
    prices.write_text("[openai.judge]\ninput = 1.0\noutput = 5.0\n")
    with open_judge(model_server, tmp_path, max_cost_usd=1e-9, prices=prices) as judge:
        pending = GroupRewarder(P2R, LIMITS, judge).start([group_of("ok")])
        with pytest.raises(JudgeUnavailableError, match="budget of"):
            pending.wait()


def test_processes_pause_and_stop_together(model_server: RunningServer, tmp_path: Path) -> None:
    """Two processes' rewarders in two threads: one judge is down for good, one is well."""
    model_server.control(replies=RULES)
    barrier = threading.Barrier(2, timeout=30)
    rows: list[Sequence[float]] = []

    def total(row: Sequence[float]) -> list[float]:
        rows.append(row)
        barrier.wait()
        sums = [sum(column) for column in zip(*rows[-2:], strict=True)]
        barrier.wait()
        return sums

    ends: dict[str, str] = {}

    def run(name: str, server: RunningServer, observations: Sequence[str]) -> None:
        (folder := tmp_path / name).mkdir()
        with open_judge(server, folder) as judge:
            rewarder = GroupRewarder(
                P2R,
                LIMITS,
                judge,
                patience=JudgePatience(pause_seconds=0.01, max_pauses=1),
                sum_over_processes=total,
            )
            for step in range(2):
                pending = rewarder.start([group_of(*(f"{o} {step}" for o in observations))])
                try:
                    pending.wait()
                    ends[name] = f"step {step}: {pending.use.pauses} pauses"
                except JudgeUnavailableError as error:
                    ends[name] = f"step {step}: {error}"
                    return

    with running_server() as dead:
        dead.control(rates={"unavailable": 1.0})
        # 1 of 6 missing is borne by both; in a second run 1 of 2 stops both
        for number, count in enumerate((5, 1)):
            workers = [
                threading.Thread(target=run, args=(f"well {number}", model_server, ["ok"] * count)),
                threading.Thread(target=run, args=(f"ill {number}", dead, ["ok"])),
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
    assert ends["well 0"] == ends["ill 0"] == "step 1: 0 pauses"
    for name in ("well 1", "ill 1"):
        assert "step 0: no reply of the judge" in ends[name]
        assert "1 of 2 observations" in ends[name]
