"""`--check`: which rows of a question file cannot be used, and why, before anything is spent."""

from contextlib import closing

from media.frames import MediaError
from media.store import FrameStore
from pipeline.options import BuildConfig
from pipeline.parts import frame_store, question_source, usage_errors
from pipeline.planning import CheckReport, PlannedRow, plan
from schemas.questions import VideoQuestion
from schemas.samples import Rejection, Step


async def check_questions(config: BuildConfig) -> CheckReport:
    """Read every row and look at every path; with `--check-decode`, decode every file too."""
    report = CheckReport()
    with usage_errors(), closing(frame_store(config)) as frames:
        for planned in plan(question_source(config), frames):
            if config.check_decode and planned.rejection is None:
                planned = await _decoded(planned, frames)
            report.add(planned)
    return report


async def _decoded(planned: PlannedRow, frames: FrameStore) -> PlannedRow:
    assert isinstance(planned.row, VideoQuestion)
    for ref in planned.row.media:
        try:
            await frames.load(ref)
        except MediaError as error:
            return PlannedRow(planned.row, Rejection(Step.MEDIA, error.reason, error.detail))
    return planned
