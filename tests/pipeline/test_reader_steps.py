"""The steps of a text reader: what is recorded, what is rejected, and what is asked at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.built_ledger import empty_ledger, question
from helpers.scripted_calls import Answer, ScriptedCalls, judgement, trace
from PIL import Image

from judges.backends.calls import CallFailure
from judges.text_reader import ReaderSettings
from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.reader_steps import ReaderStep
from pipeline.run_questions import Build
from pipeline.steps import StepSettings, SufficiencyFilter
from schemas.ledger.ledger import Ledger
from schemas.questions import MediaRef
from schemas.samples import CoTSample, Reason, Rejection, Step

STILL = (MediaRef(kind="image", path="still.png"),)
ASKED = question(1, media=STILL, solution="a red ball rolls")  # free-form: one order
RIGHT, WRONG = "<answer>a red ball rolls</answer>", "<answer>the moon</answer>"
CUT = CallFailure(Reason.TRUNCATED, "cut off")
FAILED = CallFailure(Reason.CALL_FAILED, "529 overloaded")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameStore]:
    root = tmp_path_factory.mktemp("media")
    Image.new("RGB", (90, 60)).save(root / "still.png")
    with FrameStore(root, spec=FrameSpec(), cache_dir=None, workers=1) as store:
        yield store


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with empty_ledger(tmp_path) as opened:
        opened.add_question(ASKED)
        yield opened


class Job:
    """A build of one question with scripted teacher, judge and reader."""

    def __init__(
        self,
        ledger: Ledger,
        frames: FrameStore,
        *reader: Answer,
        sufficiency: SufficiencyFilter = "judge",
        verdict: str = "Yes",
        **step: Any,
    ) -> None:
        self.teacher = ScriptedCalls(trace(ASKED.solution))
        self.judge = ScriptedCalls(judgement(verdict))
        self.reader = ScriptedCalls(*reader)
        self.build = Build(
            ledger=ledger,
            frames=frames,
            generator=self.teacher,
            judge=self.judge,
            reader=self.reader,
            settings=StepSettings(
                "claude:teacher",
                "claude:judge",
                sufficiency=sufficiency,
                reading=ReaderStep("claude:reader", ReaderSettings(samples=4), **step),
            ),
        )

    async def outcome(self) -> CoTSample | Rejection:
        return await self.build.outcome(ASKED)


async def test_a_question_that_is_answered_blind_is_marked_and_goes_on(
    ledger: Ledger, frames: FrameStore
) -> None:
    job = Job(ledger, frames, RIGHT)
    assert isinstance(await job.outcome(), CoTSample)
    assert ledger.query("SELECT * FROM blind_marks") == [
        (ASKED.question_id, 1.0, 4, 4, 0, True),
    ]
    answers = ledger.query(
        "SELECT evidence, draw, sample, permutation, answer, correct, unscored_reason"
        " FROM reader_answers ORDER BY sample"
    )
    assert answers == [("none", 0, n, 0, "a red ball rolls", True, None) for n in range(4)]
    assert [request.step for request in job.reader.requests] == ["blind"] * 4
    assert dict(job.build.blind_marks) == {"answerable": 1}


async def test_a_rejected_question_costs_no_teacher(ledger: Ledger, frames: FrameStore) -> None:
    job = Job(ledger, frames, RIGHT, action="reject")
    done = await job.outcome()
    assert done == Rejection(
        Step.BLIND,
        Reason.ANSWERABLE_BLIND,
        "4 of 4 answers without the video are correct",
    )
    assert job.teacher.requests == []
    assert dict(job.build.blind_marks) == {"answerable": 1}


@pytest.mark.parametrize("action", ["mark", "reject"])
async def test_three_of_four_do_not_make_a_question_answerable_by_default(
    ledger: Ledger, frames: FrameStore, action: str
) -> None:
    assert isinstance(await Job(ledger, frames, WRONG, RIGHT, action=action).outcome(), CoTSample)
    assert ledger.query("SELECT answerable_blind, correct FROM blind_marks") == [(False, 3)]


async def test_as_many_as_are_asked_for_do(ledger: Ledger, frames: FrameStore) -> None:
    done = await Job(ledger, frames, WRONG, RIGHT, action="reject", num_needed=3).outcome()
    assert isinstance(done, Rejection)
    assert done.reason is Reason.ANSWERABLE_BLIND


async def test_unusable_replies_leave_the_mark_open_and_reject_only_where_asked(
    ledger: Ledger, frames: FrameStore
) -> None:
    job = Job(ledger, frames, CUT, RIGHT)
    assert isinstance(await job.outcome(), CoTSample)
    assert ledger.query("SELECT answerable_blind, correct, unscored FROM blind_marks") == [
        (None, 3, 1)
    ]
    assert dict(job.build.blind_marks) == {"unscored": 1}
    done = await Job(ledger, frames, CUT, RIGHT, action="reject").outcome()
    assert isinstance(done, Rejection)
    assert (done.step, done.reason) == (Step.BLIND, Reason.UNSCORED)


@pytest.mark.parametrize("action", ["mark", "reject"])
async def test_a_reader_that_cannot_be_reached_costs_the_row_and_leaves_no_mark(
    ledger: Ledger, frames: FrameStore, action: str
) -> None:
    job = Job(ledger, frames, RIGHT, FAILED, action=action)
    done = await job.outcome()
    assert done == Rejection(Step.BLIND, Reason.CALL_FAILED, "529 overloaded")
    assert ledger.query("SELECT count(*) FROM blind_marks") == [(0,)]
    assert job.teacher.requests == []


def checks(ledger: Ledger) -> list[tuple[Any, ...]]:
    return ledger.query(
        "SELECT evidence, correct, rate, blind_rate, margin, verdict FROM reader_checks ORDER BY 1"
    )


async def test_answers_from_the_observation_stand_in_for_the_verdict(
    ledger: Ledger, frames: FrameStore
) -> None:
    job = Job(ledger, frames, WRONG, WRONG, WRONG, WRONG, RIGHT, sufficiency="answer")
    done = await job.outcome()
    assert isinstance(done, CoTSample)
    assert done.judge_reply == (
        "4 of 4 answers from the observation are correct, 0 of 4 without it; margin 0.5"
    )
    assert job.judge.requests == []
    assert checks(ledger) == [
        ("none", 0, 0.0, None, None, "no"),
        ("observation", 4, 1.0, 0.0, 0.5, "yes"),
    ]
    assert ledger.query("SELECT judge, verdict, judge_draw FROM sufficiency_verdicts") == [
        ("claude:reader", "yes", 0)
    ]
    assert all("a red ball rolls" in request.text for request in job.reader.requests[4:])
    assert [request.step for request in job.reader.requests[4:]] == ["filter-answer"] * 4


async def test_what_was_known_blind_makes_no_observation_sufficient(
    ledger: Ledger, frames: FrameStore
) -> None:
    done = await Job(ledger, frames, RIGHT, sufficiency="answer").outcome()
    assert done == Rejection(
        Step.FILTER,
        Reason.INSUFFICIENT,
        "4 of 4 answers from the observation are correct, 4 of 4 without it; margin 0.5",
    )


async def test_with_both_the_reader_is_asked_only_about_what_the_judge_lets_through(
    ledger: Ledger, frames: FrameStore
) -> None:
    no = Job(ledger, frames, WRONG, sufficiency="both", verdict="No")
    assert isinstance(await no.outcome(), Rejection)
    assert len(no.reader.requests) == 4
    yes = Job(ledger, frames, WRONG, WRONG, WRONG, WRONG, RIGHT, sufficiency="both")
    assert isinstance(await yes.outcome(), CoTSample)
    assert ledger.query(
        "SELECT judge, judge_draw, verdict FROM sufficiency_verdicts ORDER BY judge_draw"
    ) == [("claude:judge", 0, "yes"), ("claude:reader", 1, "yes")]


async def test_with_both_a_readers_no_has_the_last_word(ledger: Ledger, frames: FrameStore) -> None:
    done = await Job(ledger, frames, WRONG, sufficiency="both").outcome()
    assert isinstance(done, Rejection)
    assert done.reason is Reason.INSUFFICIENT
    assert ledger.query("SELECT count(*) FROM passing_attempts") == [(0,)]


@pytest.mark.parametrize("sufficiency", ["answer", "both"])
async def test_a_reader_that_fails_about_an_observation_costs_the_row_and_says_no_verdict(
    ledger: Ledger, frames: FrameStore, sufficiency: SufficiencyFilter
) -> None:
    """A later run asks again, so nothing may be recorded that looks like a finding."""
    script = (WRONG, WRONG, WRONG, WRONG, RIGHT, RIGHT, FAILED, RIGHT)
    done = await Job(ledger, frames, *script, sufficiency=sufficiency).outcome()
    assert done == Rejection(Step.FILTER, Reason.CALL_FAILED, "529 overloaded")
    assert [row[0] for row in checks(ledger)] == ["none"]
    assert ledger.query("SELECT count(*) FROM sufficiency_verdicts WHERE judge = 'claude:reader'")[
        0
    ] == (0,)


async def test_with_both_a_judge_that_fails_costs_the_row_and_no_reader_is_asked(
    ledger: Ledger, frames: FrameStore
) -> None:
    job = Job(ledger, frames, WRONG, sufficiency="both")
    job.build.judge = ScriptedCalls(FAILED)
    done = await job.outcome()
    assert done == Rejection(Step.FILTER, Reason.CALL_FAILED, "529 overloaded")
    assert [request.step for request in job.reader.requests] == ["blind"] * 4
    assert ledger.query("SELECT count(*) FROM sufficiency_verdicts") == [(0,)]


async def test_an_open_question_leaves_an_observation_unscored(
    ledger: Ledger, frames: FrameStore
) -> None:
    script = (WRONG, WRONG, WRONG, WRONG, RIGHT, CUT, WRONG, WRONG)
    done = await Job(ledger, frames, *script, sufficiency="answer").outcome()
    assert isinstance(done, Rejection)
    assert done.reason is Reason.UNSCORED
    assert ledger.query("SELECT verdict, unscored_reason FROM sufficiency_verdicts") == [
        ("unscored", "truncated")
    ]
