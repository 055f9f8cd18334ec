"""From a checkpoint and a question file to predictions: opens all that is needed, and resumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from judges.backends.base import BackendUnavailableError
from judges.backends.local import find_folder
from judges.backends.weights import weights_id
from schemas.config import UsageError
from schemas.prompting import task_prompt, template_of_model
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES
from train.evaluation.answer_log import AnswerLog
from train.evaluation.answering import VideoAnswerer
from train.evaluation.asked import (
    SPECIMEN,
    Asked,
    Media,
    batches_of,
    read_asked,
    shuffled_media,
)
from train.evaluation.options import EvaluateConfig
from train.evaluation.predictions import Prediction, RunFacts
from train.evaluation.progress import AnswerProgress, say
from train.frame_loader import FrameLoader
from train.models import load_policy, load_processor
from train.sampling_rules import Sampling
from train.video_inputs import VideoInputs


@dataclass(frozen=True)
class Answered:
    """All predictions in file order, under which conditions, and which rows take no part."""

    facts: RunFacts
    predictions: tuple[Prediction, ...]
    left_out: tuple[str, ...] = ()


def answer_by_model(config: EvaluateConfig, loader: FrameLoader, folder: Path) -> Answered:
    """Ask --model every question that `folder` holds no answer to."""
    assert config.model is not None
    asked = read_asked(config)
    model = _model_folder(config)
    name = config.template or _own_template(model)
    facts, made_with = _facts(config, name, model)
    shown = shuffled_media(asked.pool, config.seed) if config.shuffle_videos else {}
    left_out = list(asked.unreadable)
    questions = asked.questions
    if config.shuffle_videos:
        questions, alone = _swappable(asked, shown)
        left_out += alone
    with AnswerLog(folder, questions, made_with, retry_errors=config.retry_failed) as log:
        if len(log) < len(questions):
            _ask(config, loader, questions, shown, log, name)
        predictions = [found for question in questions if (found := log.get(question)) is not None]
    return Answered(facts, tuple(predictions), tuple(left_out))


def _model_folder(config: EvaluateConfig) -> Path:
    assert config.model is not None
    try:
        return find_folder(config.model)
    except BackendUnavailableError as error:
        raise UsageError(f"--model {config.model}: {error}") from None


def _own_template(model: Path) -> str:
    """The template that the model was trained with; p2r for one that does not say."""
    try:
        return template_of_model(model) or "p2r"
    except ValueError as error:
        raise UsageError(str(error)) from None


def _facts(config: EvaluateConfig, template: str, model: Path) -> tuple[RunFacts, dict[str, str]]:
    """What is printed beside the scores, and what stored answers must agree with."""
    weights = weights_id(model)
    prompt_id = task_prompt(SPECIMEN, template, duration_seconds=1.0, num_frames=1).prompt_id
    facts = RunFacts(
        model=f"{config.model} ({weights})",
        template=template,
        prompt_id=prompt_id,
        frames=f"{config.frames}, at most {config.max_pixels} pixels each, {config.video_reader}",
        decoding=decoding(config),
        control="another clip's frames (--shuffle-videos)" if config.shuffle_videos else "",
    )
    return facts, {"weights": weights, "prompt": prompt_id}


def decoding(config: EvaluateConfig) -> str:
    """How tokens are drawn, in words."""
    if not config.temperature:
        return f"greedy, at most {config.max_new_tokens} tokens"
    return (
        f"temperature {config.temperature:g}, top_p {config.top_p:g}, seed {config.seed}, at most "
        f"{config.max_new_tokens} tokens"
    )


def _swappable(
    asked: Asked, shown: dict[Media, Media]
) -> tuple[tuple[VideoQuestion, ...], list[str]]:
    """Questions whose media can be swapped, and the others, told."""
    if not shown:
        raise UsageError(
            "--shuffle-videos needs questions about at least two clips; all of these are about "
            "one, so there is no other to show"
        )
    can = tuple(one for one in asked.questions if one.media in shown)
    alone = [
        f"row {one.row}: no other media of its kinds can be shown in its place"
        for one in asked.questions
        if one.media not in shown
    ]
    return can, alone


def _ask(
    config: EvaluateConfig,
    loader: FrameLoader,
    questions: Sequence[VideoQuestion],
    shown: dict[Media, Media],
    log: AnswerLog,
    template: str,
) -> None:
    assert config.model is not None
    try:
        sampling = Sampling(
            config.max_new_tokens, temperature=config.temperature, top_p=config.top_p
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    inputs = VideoInputs(load_processor(config.model), loader, TEMPLATES[template])
    model = load_policy(
        config.model, dtype=config.dtype, device=config.device, attention=config.attention
    )
    answerer = VideoAnswerer(model, inputs, sampling, seed=config.seed, shown=shown, say=say)
    lengths = {
        one.media: sum(inputs.most_vision_tokens(ref) for ref in one.media) for one in questions
    }
    # A batch with a missing answer is computed as a whole: what neighbours change by rounding is
    # then the same as in a run that nobody killed.
    batches = [
        batch
        for batch in batches_of(questions, lengths, config.batch_size)
        if any(one not in log for one in batch)
    ]
    with AnswerProgress(len(questions), len(log)) as progress:
        for predictions in answerer.answers(batches):
            before = len(log)
            log.add(predictions)
            progress.advance(len(log) - before, sum(bool(one.error) for one in predictions))
