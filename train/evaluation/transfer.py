"""Text-only transfer: a reader answers from another model's observation, without the video.

VideoP2R (arXiv 2511.11113, figure 4, table 5): the reader's prompt is the think-answer one with a
sentence that an observation is given instead of the visual content. A reply without a well-formed
observation gives the reader nothing: it is not asked and scores 0.
"""

import asyncio
import re
from importlib import resources
from pathlib import Path

from judges.backends.base import BackendInfo, ChatRequest, Reply, TextPart
from judges.backends.calls import CallFailure
from judges.sufficiency import escape_fences
from schemas.config import UsageError
from schemas.ids import content_id
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, segment_spans
from train.evaluation.asked import SPECIMEN
from train.evaluation.backend_calls import each, open_calls
from train.evaluation.model_answers import Answered, decoding
from train.evaluation.options import EvaluateConfig
from train.evaluation.predictions import NO_OBSERVATION, Prediction, RunFacts
from train.evaluation.predictions_file import PredictionsFile

_PROMPT = "observation_reader.md"
_PLACEHOLDER = re.compile(r"\{(task|observation)\}")
_OBSERVED = "p2r"


def answer_from_observations(
    config: EvaluateConfig, source: PredictionsFile, folder: Path
) -> Answered:
    """Ask --reader every question of `source`. Raises UsageError, StopRequested."""
    assert config.reader is not None
    template = config.template or "think-answer"
    if template == "grounding":
        raise UsageError(
            f"--template {template}: a reader without a video is asked by p2r or think-answer"
        )
    predictions = source.predictions[: config.limit]
    observations = [observation_of(one.output) for one in predictions]
    if not any(observations):
        raise UsageError(
            f"--observations-from {config.observations_from} holds no reply with a well-formed "
            "<observation>; give answers of a model that writes one"
        )
    asked = [
        (one.question, text) for one, text in zip(predictions, observations, strict=True) if text
    ]
    replies = iter(asyncio.run(_asked(config, asked, template, folder)))
    answers = tuple(
        next(replies) if text else Prediction(one.question, finish_reason=NO_OBSERVATION)
        for one, text in zip(predictions, observations, strict=True)
    )
    return Answered(_facts(config, source.facts, template), answers, source.unreadable)


def observation_of(output: str) -> str:
    """The text of the well-formed observation in a reply, or nothing."""
    spans = segment_spans(output, TEMPLATES[_OBSERVED])
    return next(
        (
            output[one.inner_start : one.inner_end].strip()
            for one in spans
            if one.tag == "observation"
        ),
        "",
    )


def reader_prompt(question: VideoQuestion, observation: str, template: str) -> tuple[str, str]:
    """What the reader is asked, and the id of the two prompt files it was made from.

    Placeholders are filled in one pass; the observation cannot close its tag.
    """
    task = task_prompt(question, template)
    text = (resources.files("train.evaluation") / _PROMPT).read_bytes().decode()
    filled = {"task": task.text, "observation": escape_fences(observation)}
    prompt = _PLACEHOLDER.sub(lambda found: filled[found[1]], text.removesuffix("\n"))
    return prompt, content_id("prompt", {"task": task.prompt_id, "reader": text})


async def _asked(
    config: EvaluateConfig,
    asked: list[tuple[VideoQuestion, str]],
    template: str,
    folder: Path,
) -> list[Prediction]:
    assert config.reader is not None
    # A plain folder or hub id is a model in this process.
    spec = config.reader if ":" in config.reader else f"local:{config.reader}"
    async with open_calls(spec, config, folder) as opened:
        sampling = _sampling(config, opened.info)

        async def read(one: tuple[VideoQuestion, str]) -> Prediction:
            question, observation = one
            request = ChatRequest(
                parts=(TextPart(reader_prompt(question, observation, template)[0]),),
                max_tokens=config.max_new_tokens,
                sampling=sampling,
                step="generate",
                question_id=question.question_id,
            )
            return _prediction(question, (await opened.calls.call(request)).outcome)

        return await each(asked, read, at_once=4 * config.concurrency)


def _sampling(config: EvaluateConfig, info: BackendInfo) -> tuple[tuple[str, float], ...]:
    """What the backend takes of the options."""
    wanted = (("temperature", config.temperature), ("top_p", config.top_p))
    return tuple((name, value) for name, value in wanted if name in info.takes_sampling)


def _prediction(question: VideoQuestion, outcome: Reply | CallFailure) -> Prediction:
    if isinstance(outcome, CallFailure):
        return Prediction(question, error=f"{outcome.reason.value}: {outcome.detail}")
    return Prediction(question, output=outcome.text, finish_reason="end")


def _facts(config: EvaluateConfig, seen_by: RunFacts, template: str) -> RunFacts:
    return RunFacts(
        model=f"{config.reader}, reading the observations of {seen_by.model or 'somebody'}",
        template=template,
        prompt_id=reader_prompt(SPECIMEN, "?", template)[1],
        frames=f"none ({seen_by.frames or 'not recorded'} for the observations)",
        decoding=decoding(config),
        control="text only, an observation in the place of the video",
    )
