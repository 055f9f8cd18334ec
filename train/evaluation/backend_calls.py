"""Language models in an evaluation: readers of observations, and extractors of conclusions.

Text-only transfer (VideoP2R, arXiv 2511.11113, figure 4, table 5): a reader answers from another
model's observation, without the video. Its prompt is the think-answer one with a sentence that an
observation replaces the visual content. A reply without a well-formed observation gives the reader
nothing: no call is made and the row scores 0.

`OUT/calls.duckdb` keeps every call, so the same command again pays for nothing twice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cli.config import EXIT_OK, UsageError
from judges.backends.base import (
    BackendInfo,
    BackendUnavailableError,
    ChatRequest,
    Reply,
    TextPart,
)
from judges.backends.budget import StopRequested
from judges.backends.call_records import CallFailure
from judges.backends.calls import Calls
from judges.backends.preflight import HeldCalls
from judges.backends.registry import takes_no_money
from judges.backends.session import CallSession, check_before, opened_backend
from judges.consistency_llm import Consistency, judge_consistency
from judges.text_reader import reader_prompt
from schemas.ledger.ledger import Ledger, LedgerError
from schemas.questions import VideoQuestion
from schemas.runs import start_run
from schemas.samples import CALL_ERRORS, UnscoredReason
from schemas.traces import TEMPLATES, segment_spans
from train.evaluation.eval_questions import SPECIMEN
from train.evaluation.options import EvaluateConfig, backend_specs, reader_spec
from train.evaluation.predictions import NO_OBSERVATION, Prediction, Predictions, RunConditions
from train.evaluation.progress import AnswerProgress
from train.evaluation.scoring import SampleScore

CALLS_FILE = "calls.duckdb"
_OBSERVED = "p2r"  # the template whose replies hold an observation
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CallsFolder:
    """Where calls are kept, and the first of them, which showed that the models answer."""

    path: Path
    checks: HeldCalls

    @property
    def file(self) -> Path:
        """The ledger."""
        return self.path / CALLS_FILE


def checked_folder(config: EvaluateConfig, folder: Path) -> CallsFolder:
    """`folder`, after every model behind a server has answered; nothing is written there.

    Where the folder has calls already, models are asked when the first call is due. Raises
    UsageError where one does not answer.
    """
    specs = backend_specs(config)
    if (folder / CALLS_FILE).exists():
        return CallsFolder(folder, HeldCalls())
    return CallsFolder(folder, asyncio.run(_checked(specs, config)))


async def _checked(specs: Mapping[str, str | None], config: EvaluateConfig) -> HeldCalls:
    async with AsyncExitStack() as closing:
        backends = {
            option: await closing.enter_async_context(
                opened_backend(spec, config, media_root=config.media_root)
            )
            for option, spec in specs.items()
            if spec is not None and not takes_no_money(spec)
        }
        return await check_before(backends, config)


def answer_from_observations(
    config: EvaluateConfig, source: Predictions, folder: CallsFolder
) -> Predictions:
    """--observation-reader answers every question of `source`. Raises UsageError, StopRequested."""
    template = config.template or "think-answer"
    if template == "grounding":
        raise UsageError(
            f"--template {template} was given, but a reader of observations has no video to find "
            "times in; use p2r or think-answer"
        )
    predictions = source.predictions[: config.limit]
    observations = [observation_of(one.output) for one in predictions]
    if not any(observations):
        raise UsageError(
            f"--observations-from {config.observations_from} holds no reply with a well-formed "
            "<observation>; give answers of a model that writes one"
        )
    pairs = list(zip(predictions, observations, strict=True))
    readable = [(one.question, text) for one, text in pairs if text]
    replies = iter(asyncio.run(_read_observations(config, readable, template, folder)))
    answers = tuple(
        next(replies) if text else Prediction(one.question, finish_reason=NO_OBSERVATION)
        for one, text in pairs
    )
    return Predictions(_conditions(config, source.conditions, template), answers, source.unreadable)


def observation_of(output: str) -> str:
    """The text of the well-formed observation in a reply; "" without one."""
    for span in segment_spans(output, TEMPLATES[_OBSERVED]):
        if span.tag == "observation":
            return output[span.inner_start : span.inner_end].strip()
    return ""


def extract_conclusions(
    scores: Sequence[SampleScore], config: EvaluateConfig, folder: CallsFolder
) -> tuple[tuple[SampleScore, ...], str]:
    """The same scores with the conclusions that --extractor reads, and the extractor's name.

    VideoP2R's rule: a language model reads which option the reasoning alone concludes. A reply that
    cannot be parsed or a failed call leaves its row without a conclusion, and is counted in the
    name. Raises UsageError, StopRequested.
    """
    assert config.extractor is not None
    reasoned = [one for one in scores if one.reasoning]
    found = asyncio.run(_read_conclusions(reasoned, config, config.extractor, folder))
    letters = iter(one.letter for one in found)
    rows = tuple(one.with_conclusion(next(letters)) if one.reasoning else one for one in scores)
    return rows, _extractor_name(config.extractor, found)


def _extractor_name(spec: str, found: Sequence[Consistency]) -> str:
    unread = sum(
        one.letter is None and one.verdict.unscored_reason is not UnscoredReason.NO_CONCLUSION
        for one in found
    )
    name = f"{spec} {found[0].prompt_id}" if found else spec
    return f"{name}, {unread} of {len(found)} replies unread" if unread else name


async def _read_conclusions(
    reasoned: Sequence[SampleScore], config: EvaluateConfig, spec: str, folder: CallsFolder
) -> list[Consistency]:
    async with opened_calls(spec, config, folder) as calls:

        async def read(one: SampleScore) -> Consistency:
            return await judge_consistency(
                calls,
                one.prediction.question,
                one.reasoning,
                max_tokens=config.extractor_max_tokens,
            )

        return await all_results(reasoned, read, most_at_once=4 * config.concurrency)


async def _read_observations(
    config: EvaluateConfig,
    readable: Sequence[tuple[VideoQuestion, str]],
    template: str,
    folder: CallsFolder,
) -> list[Prediction]:
    spec = reader_spec(config)
    assert spec is not None
    async with opened_calls(spec, config, folder) as calls:
        sampling = _sampling_params(config, calls.info)

        async def read(one: tuple[VideoQuestion, str]) -> Prediction:
            question, observation = one
            request = ChatRequest(
                parts=(TextPart(reader_prompt(question, observation, template)[0]),),
                max_tokens=config.max_new_tokens,
                sampling=sampling,
                step="generate",
                question_id=question.question_id,
            )
            return _prediction(question, (await calls.call(request)).outcome)

        return await all_results(readable, read, most_at_once=4 * config.concurrency)


def _sampling_params(config: EvaluateConfig, info: BackendInfo) -> tuple[tuple[str, float], ...]:
    """Those sampling options that the backend takes."""
    wanted = (("temperature", config.temperature), ("top_p", config.top_p))
    return tuple((name, value) for name, value in wanted if name in info.takes_sampling)


def _prediction(question: VideoQuestion, outcome: Reply | CallFailure) -> Prediction:
    if isinstance(outcome, CallFailure):
        return Prediction(question, error=f"{outcome.reason.value}: {outcome.detail}")
    return Prediction(question, output=outcome.text, finish_reason="end")


def _conditions(config: EvaluateConfig, observed: RunConditions, template: str) -> RunConditions:
    observer = observed.model or "an unrecorded model"
    return RunConditions(
        model=f"{config.observation_reader}, reading the observations of {observer}",
        template=template,
        prompt_id=reader_prompt(SPECIMEN, "?", template)[1],
        frames=f"none ({observed.frames or 'not recorded'} for the observations)",
        decoding=config.decoding(),
        control="text only, an observation in the place of the video",
    )


@asynccontextmanager
async def opened_calls(
    spec: str, config: EvaluateConfig, folder: CallsFolder
) -> AsyncIterator[Calls]:
    """The call layer of one backend. Raises UsageError where it cannot be opened or paid for."""
    async with AsyncExitStack() as closing:
        try:
            backend = await closing.enter_async_context(
                opened_backend(spec, config, media_root=config.media_root)
            )
            folder.path.mkdir(parents=True, exist_ok=True)
            run = start_run("train.evaluate", config)
            ledger = closing.enter_context(Ledger.open(folder.file, run))
        except (BackendUnavailableError, LedgerError) as error:
            raise UsageError(str(error)) from error
        if config.retry_failed:
            ledger.forget_failures(CALL_ERRORS)
        yield CallSession(config, ledger, checks=folder.checks).checked_calls(backend)
        ledger.end_run(EXIT_OK)


async def all_results(
    items: Sequence[_Item],
    work: Callable[[_Item], Awaitable[_Result]],
    *,
    most_at_once: int,
) -> list[_Result]:
    """The results of `work`, in the order of the items. Raises StopRequested."""
    window = asyncio.Semaphore(most_at_once)
    with AnswerProgress(len(items), 0) as progress:

        async def one(item: _Item) -> _Result:
            async with window:
                result = await work(item)
            progress.advance(1, 0)
            return result

        tasks = [asyncio.create_task(one(item)) for item in items]
        try:
            return list(await asyncio.gather(*tasks))
        except StopRequested:
            await asyncio.wait(tasks)
            raise
