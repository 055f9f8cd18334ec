"""Who runs the steps: a bounded window of questions, each going on as soon as it can.

What comes out depends on questions, frames and replies alone: rows share nothing, draws are counted
per question, and the dataset is written in the question file's order. So neither concurrency, nor
the order in which replies arrive, nor a restart changes a row.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from judges.backends.calls import StopRequested
from judges.sufficiency import Caller
from media.frames import EncodedFrames, MediaError
from media.store import FrameStore
from pipeline.steps import StepSettings, filter_observation, generate, verify
from schemas.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.samples import CoTSample, Rejection, Step

_STEP_ORDER = list(Step)


@dataclass
class Build:
    """Everything that one question needs to reach its outcome."""

    ledger: Ledger
    frames: FrameStore
    generator: Caller
    judge: Caller
    settings: StepSettings
    attempts: int = 1
    _recorded_media: set[str] = field(default_factory=set)

    async def outcome(self, question: VideoQuestion) -> CoTSample | Rejection:
        """Frames, then up to `attempts` draws of the three steps; the first sample wins.

        Where every draw fails, the rejection is that of the draw that came furthest (the last of
        them).
        """
        try:
            clips = [await self._load(question, index) for index in range(len(question.media))]
        except MediaError as error:
            return Rejection(Step.MEDIA, error.reason, error.detail)
        rejection: Rejection | None = None
        for draw in range(self.attempts):
            result = await self._attempt(question, clips, draw)
            if isinstance(result, CoTSample):
                return result
            if rejection is None or _STEP_ORDER.index(result.step) >= _STEP_ORDER.index(
                rejection.step
            ):
                rejection = result
        assert rejection is not None, "attempts is at least 1"
        return rejection

    async def _attempt(
        self, question: VideoQuestion, clips: list[EncodedFrames], draw: int
    ) -> CoTSample | Rejection:
        generated = await generate(
            question, clips, draw, calls=self.generator, ledger=self.ledger, settings=self.settings
        )
        if isinstance(generated, Rejection):
            return generated
        verified = verify(generated, ledger=self.ledger, settings=self.settings)
        if isinstance(verified, Rejection):
            return verified
        return await filter_observation(
            verified, calls=self.judge, ledger=self.ledger, settings=self.settings
        )

    async def _load(self, question: VideoQuestion, index: int) -> EncodedFrames:
        ref = question.media[index]
        clip = await self.frames.load(ref)
        if ref.path not in self._recorded_media:
            self._recorded_media.add(ref.path)
            self.ledger.add_media(
                {
                    "path": ref.path,
                    "kind": clip.kind,
                    "media_id": clip.media_id,
                    "frame_spec_id": clip.spec.frame_spec_id,
                    "reader": clip.reader,
                    "source_width": clip.source_width,
                    "source_height": clip.source_height,
                    "width": clip.width,
                    "height": clip.height,
                    "num_source_frames": clip.num_source_frames,
                    "duration_seconds": clip.duration_seconds,
                    "frame_indices": list(clip.indices),
                    "frame_times": list(clip.times),
                }
            )
        return clip


@dataclass
class Stop:
    """A request to stop, with the reason that the user is told. The first reason stays."""

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
    """Run `questions` with at most `window` under way.

    A row that meets StopRequested (Ctrl-C, an exhausted budget) is left without an outcome, for the
    next run; `on_stop` is called once, so that both call layers start nothing new. Any other
    exception is a fault of ours: it ends the run and reaches the caller.
    """
    slots = asyncio.Semaphore(window)

    async def settle(question: VideoQuestion) -> None:
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
                tasks.create_task(settle(question))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # the others follow from the first
