"""Draws until one passes, a bounded window of questions, and a stop that leaves rows open."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.built_ledger import empty_ledger, question
from helpers.scripted_calls import Answer, ScriptedCalls, judgement, trace
from PIL import Image

from judges.backends.base import ChatRequest
from judges.backends.calls import CallFailure, CallResult, StopRequested
from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.run_questions import Build, Stop, run_questions
from pipeline.steps import StepSettings
from schemas.ledger.ledger import Ledger
from schemas.questions import MediaRef, VideoQuestion
from schemas.samples import CoTSample, Reason, Rejection, Step

STILL = (MediaRef(kind="image", path="still.png"),)
MALFORMED, WRONG, RIGHT = "no trace", trace("B"), trace("A")  # the gold answer is A
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
        yield opened


def asked(row: int = 0) -> VideoQuestion:
    return question(2 * row, media=STILL, solution="A")  # even rows are multiple choice


def build(
    ledger: Ledger, frames: FrameStore, generator: ScriptedCalls, *verdicts: Answer, attempts: int
) -> Build:
    return Build(
        ledger=ledger,
        frames=frames,
        generator=generator,
        judge=ScriptedCalls(*(verdicts or (judgement("Yes"),))),
        settings=StepSettings("claude:teacher", "claude:judge"),
        attempts=attempts,
    )


async def test_the_first_draw_that_passes_is_the_last_one_asked_for(
    ledger: Ledger, frames: FrameStore
) -> None:
    teacher = ScriptedCalls(MALFORMED, WRONG, RIGHT, RIGHT)
    done = await build(ledger, frames, teacher, attempts=4).outcome(asked())
    assert isinstance(done, CoTSample)
    assert done.draw == 2
    assert [request.draw for request in teacher.requests] == [0, 1, 2]
    assert ledger.query("SELECT draw FROM attempts ORDER BY draw") == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("draws", "step", "reason"),
    [
        ((MALFORMED, FAILED), Step.VERIFY, Reason.MALFORMED_TRACE),
        ((FAILED, MALFORMED), Step.VERIFY, Reason.MALFORMED_TRACE),
        ((WRONG, MALFORMED, FAILED), Step.VERIFY, Reason.MALFORMED_TRACE),  # equally far: the last
        ((WRONG, RIGHT, FAILED), Step.FILTER, Reason.INSUFFICIENT),
        ((FAILED, FAILED), Step.GENERATE, Reason.CALL_FAILED),
    ],
)
async def test_where_every_draw_fails_the_one_that_came_furthest_says_why(
    ledger: Ledger, frames: FrameStore, draws: tuple[Answer, ...], step: Step, reason: Reason
) -> None:
    teacher = ScriptedCalls(*draws)
    job = build(ledger, frames, teacher, judgement("No"), attempts=len(draws))
    done = await job.outcome(asked())
    assert isinstance(done, Rejection)
    assert (done.step, done.reason) == (step, reason)
    assert len(teacher.requests) == len(draws)


async def test_a_file_that_cannot_be_read_costs_no_call(ledger: Ledger, frames: FrameStore) -> None:
    teacher = ScriptedCalls(RIGHT)
    gone = question(0, media=(*STILL, MediaRef(kind="video", path="gone.mp4")))
    done = await build(ledger, frames, teacher, attempts=3).outcome(gone)
    assert isinstance(done, Rejection)
    assert (done.step, done.reason) == (Step.MEDIA, Reason.MISSING_FILE)
    assert teacher.requests == []


async def test_a_file_is_recorded_once_however_many_questions_ask_about_it(
    ledger: Ledger, frames: FrameStore
) -> None:
    job = build(ledger, frames, ScriptedCalls(RIGHT), attempts=1)
    for row in range(3):
        await job.outcome(asked(row))
    assert ledger.query("SELECT path, kind, reader, width, height FROM media") == [
        ("still.png", "image", "pillow", 90, 60)
    ]


class CountingCalls(ScriptedCalls):
    """Counts how many calls are under way at a time."""

    now = peak = 0

    async def call(self, request: ChatRequest) -> CallResult:
        self.now += 1
        self.peak = max(self.peak, self.now)
        await asyncio.sleep(0.002)
        self.now -= 1
        return await super().call(request)


async def test_the_window_bounds_what_is_under_way_and_every_question_gets_its_outcome(
    ledger: Ledger, frames: FrameStore
) -> None:
    teacher = CountingCalls(RIGHT)
    job = build(ledger, frames, teacher, attempts=1)
    taken: list[int] = []
    settled: list[int] = []

    def questions() -> Iterator[VideoQuestion]:
        for row in range(20):
            taken.append(row)
            assert len(taken) - len(settled) <= 4  # three under way and the next in hand
            yield asked(row)

    await run_questions(
        questions(),
        job,
        window=3,
        stop=Stop(),
        on_stop=lambda: None,
        on_outcome=lambda question, _: settled.append(question.row),
    )
    assert teacher.peak == 3
    assert sorted(settled) == [2 * row for row in range(20)]


async def test_a_stop_leaves_rows_open_says_why_once_and_starts_nothing_more(
    ledger: Ledger, frames: FrameStore
) -> None:
    teacher = ScriptedCalls(WRONG, WRONG, StopRequested("the budget is spent"))
    stop, stops, settled = Stop(), [], []
    ledger.add_questions(asked(row) for row in range(10))
    await run_questions(
        (asked(row) for row in range(10)),
        build(ledger, frames, teacher, attempts=1),
        window=2,
        stop=stop,
        on_stop=lambda: stops.append("stopped"),
        on_outcome=lambda question, _: settled.append(question.question_id),
    )
    assert stop.reason == "the budget is spent"
    assert stops == ["stopped"]
    assert len(settled) == 2
    assert ledger.finished_question_ids() == set(settled)
    assert len(teacher.requests) <= 4  # the two of the window that were under way


async def test_a_fault_of_ours_ends_the_run_and_is_not_a_rejection(
    ledger: Ledger, frames: FrameStore
) -> None:
    class Broken(ScriptedCalls):
        async def call(self, request: ChatRequest) -> CallResult:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_questions(
            [asked()],
            build(ledger, frames, Broken(RIGHT), attempts=1),
            window=2,
            stop=Stop(),
            on_stop=lambda: None,
            on_outcome=lambda *_: None,
        )
    assert ledger.query("SELECT count(*) FROM rejections") == [(0,)]
