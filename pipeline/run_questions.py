"""Runs the steps over a bounded window of concurrent questions.

The output depends only on questions, frames and replies: rows share no state, attempts are counted
per question, and the dataset is written in the question file's order. So concurrency, the order of
replies, and restarts do not change a row.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from judges.backends.calls import StopRequested
from judges.sufficiency import Caller
from judges.text_reader import Reading
from media.frames import EncodedFrames, MediaError
from media.store import FrameStore
from pipeline.reader_steps import check_blind
from pipeline.steps import StepSettings, filter_observation, generate, verify
from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import MediaRow
from schemas.questions import MediaRef, VideoQuestion
from schemas.samples import CoTSample, Reason, Rejection, Step

_STEP_ORDER = list(Step)
MARK_NAMES = {True: "answerable", False: "needs_video", None: "unscored"}


@dataclass
class Build:
    """Everything that a question needs to reach its outcome."""

    ledger: Ledger
    frames: FrameStore
    generator: Caller
    judge: Caller | None
    settings: StepSettings
    attempts: int = 1
    reader: Caller | None = None
    blind_marks: Counter[str] = field(default_factory=Counter)
    """Questions by what the text reader found: `answerable`, `needs_video`, `unscored`."""
    _recorded_media: set[MediaRef] = field(default_factory=set)

    async def outcome(self, question: VideoQuestion) -> CoTSample | Rejection:
        """Load the frames, ask the text reader if there is one, then make up to `attempts`
        attempts; the first accepted sample wins.

        If every attempt fails, the rejection is that of the attempt that got furthest (the last
        one on a tie).
        """
        try:
            clips = [await self._load(question, index) for index in range(len(question.media))]
        except MediaError as error:
            return Rejection(Step.MEDIA, error.reason, error.detail)
        blind = await self._blind(question)
        if isinstance(blind, Rejection):
            return blind
        rejection: Rejection | None = None
        for attempt in range(self.attempts):
            result = await self._attempt(question, clips, attempt, blind)
            if isinstance(result, CoTSample):
                return result
            if rejection is None or _STEP_ORDER.index(result.step) >= _STEP_ORDER.index(
                rejection.step
            ):
                rejection = result
        assert rejection is not None, "attempts is at least 1"
        return rejection

    async def _attempt(
        self,
        question: VideoQuestion,
        clips: list[EncodedFrames],
        attempt: int,
        blind: Reading | None,
    ) -> CoTSample | Rejection:
        generated = await generate(
            question,
            clips,
            attempt,
            calls=self.generator,
            ledger=self.ledger,
            settings=self.settings,
        )
        if isinstance(generated, Rejection):
            return generated
        verified = verify(generated, ledger=self.ledger, settings=self.settings)
        if isinstance(verified, Rejection):
            return verified
        return await filter_observation(
            verified,
            calls=self.judge,
            ledger=self.ledger,
            settings=self.settings,
            reader=self.reader,
            blind=blind,
        )

    async def _blind(self, question: VideoQuestion) -> Reading | Rejection | None:
        """What the text reader answers without the video; None without a reader."""
        step = self.settings.reading
        if step is None:
            return None
        assert self.reader is not None
        found = await check_blind(question, calls=self.reader, ledger=self.ledger, step=step)
        if not isinstance(found, Rejection):
            self.blind_marks[MARK_NAMES[found.reaches(step.needed)]] += 1
        elif found.reason is Reason.ANSWERABLE_BLIND:
            self.blind_marks[MARK_NAMES[True]] += 1
        elif found.reason is Reason.UNSCORED:
            self.blind_marks[MARK_NAMES[None]] += 1
        return found

    async def _load(self, question: VideoQuestion, index: int) -> EncodedFrames:
        ref = question.media[index]
        clip = await self.frames.load(ref)
        if ref not in self._recorded_media:
            self._recorded_media.add(ref)
            self.ledger.add_media(
                MediaRow(
                    path=ref.path,
                    kind=clip.kind,
                    media_id=clip.media_id,
                    frame_spec_id=clip.spec.frame_spec_id,
                    reader=clip.reader,
                    source_width=clip.source_width,
                    source_height=clip.source_height,
                    width=clip.width,
                    height=clip.height,
                    num_source_frames=clip.num_source_frames,
                    duration_seconds=clip.duration_seconds,
                    frame_indices=clip.indices,
                    frame_times=clip.times,
                )
            )
        return clip


@dataclass
class Stop:
    """A request to stop, with the reason to print. Only the first reason is kept."""

    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.reason)

    def request(self, reason: str) -> None:
        """Ask for a stop; later reasons do not replace the first."""
        self.reason = self.reason or reason


async def run_questions(
    questions: Iterable[VideoQuestion],
    build: Build,
    *,
    window: int,
    stop: Stop,
    on_stop: Callable[[], None],
    on_outcome: Callable[[VideoQuestion, CoTSample | Rejection], None],
) -> None:
    """Run `questions`, at most `window` of them concurrently.

    A row that meets StopRequested (Ctrl-C, an exhausted budget) stays without an outcome for the
    next run; `on_stop` is called once, so that both call layers start nothing new. Any other
    exception is a bug: it ends the run and reaches the caller.
    """
    slots = asyncio.Semaphore(window)

    async def run_one(question: VideoQuestion) -> None:
        try:
            outcome = await build.outcome(question)
            if isinstance(outcome, Rejection):
                build.ledger.add_rejection(question.question_id, outcome)
            on_outcome(question, outcome)
        except StopRequested as request:
            if not stop:
                stop.request(str(request))
                on_stop()
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as tasks:
            for question in questions:
                await slots.acquire()
                if stop:
                    break
                tasks.create_task(run_one(question))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # the others are consequences of the first
