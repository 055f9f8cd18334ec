"""A checkpoint answers a question file: opens model and media, resumes, returns predictions."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, current_thread, main_thread
from types import FrameType

from cli.config import UsageError, say
from judges.backends.base import BackendUnavailableError
from judges.backends.local import find_folder
from judges.backends.model_files.identity import weights_id
from judges.backends.model_files.texts import refuse_foreign_tokens
from schemas.prompting import task_prompt, template_of_model
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.evaluation.answer_log import AnswerLog
from train.evaluation.eval_questions import (
    SPECIMEN,
    EvalQuestions,
    Media,
    batches_of,
    read_eval_questions,
    shuffled_media,
)
from train.evaluation.options import EvaluateConfig
from train.evaluation.predictions import Predictions, RunConditions
from train.evaluation.progress import AnswerProgress
from train.evaluation.video_answerer import VideoAnswerer
from train.modeling.loading import load_policy, load_processor
from train.rollouts.token_sampling import Sampling


def answer_by_model(config: EvaluateConfig, loader: FrameLoader, folder: Path) -> Predictions:
    """Have --model answer every question that `folder` holds no answer to."""
    asked = read_eval_questions(config)
    model = _model_folder(config)
    name = config.template or _own_template(model)
    conditions, made_with = _conditions(config, name, model)
    shown = shuffled_media(asked.pool, config.seed) if config.shuffle_videos else {}
    unreadable = list(asked.unreadable)
    questions = asked.questions
    if config.shuffle_videos:
        questions, alone = _swappable(asked, shown)
        unreadable += alone
    with AnswerLog(folder, questions, made_with, retry_errors=config.retry_failed) as log:
        if len(log) < len(questions):
            _answer(config, loader, questions, shown, log, name)
        predictions = [found for question in questions if (found := log.get(question)) is not None]
    return Predictions(conditions, tuple(predictions), tuple(unreadable))


def _model_folder(config: EvaluateConfig) -> Path:
    assert config.model is not None
    try:
        return find_folder(config.model)
    except BackendUnavailableError as error:
        raise UsageError(f"--model {config.model}: {error}") from None


def _own_template(model: Path) -> str:
    """The template that the model was trained with; p2r where its folder records none."""
    try:
        return template_of_model(model) or "p2r"
    except ValueError as error:
        raise UsageError(str(error)) from None


def _conditions(
    config: EvaluateConfig, template: str, model: Path
) -> tuple[RunConditions, dict[str, str]]:
    """What is printed beside the scores, and what stored answers must agree with."""
    weights = weights_id(model)
    prompt_id = task_prompt(SPECIMEN, template, duration_seconds=1.0, num_frames=1).prompt_id
    conditions = RunConditions(
        model=f"{config.model} ({weights})",
        template=template,
        prompt_id=prompt_id,
        frames=f"{config.frames}, at most {config.max_pixels} pixels each, {config.video_decoder}",
        decoding=config.decoding(),
        control="another clip's frames (--shuffle-videos)" if config.shuffle_videos else "",
    )
    return conditions, {"weights": weights, "prompt": prompt_id}


def _swappable(
    asked: EvalQuestions, shown: dict[Media, Media]
) -> tuple[tuple[VideoQuestion, ...], list[str]]:
    """Questions whose media can be swapped, and one line for each other one."""
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


def _answer(
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
    inputs = VideoInputs(
        load_processor(config.model),
        loader,
        TEMPLATES[template],
        rope_positions=config.rope_positions,
    )
    model = load_policy(
        config.model,
        dtype=config.dtype,
        device=config.device or "auto",
        attention=config.attention,
    )
    refuse_foreign_tokens(config.model, model, inputs.processor)
    answerer = VideoAnswerer(model, inputs, sampling, seed=config.seed, shown=shown, say=say)
    lengths = {
        one.media: sum(inputs.most_vision_tokens(ref) for ref in one.media) for one in questions
    }
    # A batch with a missing answer is computed as a whole, so that rounding, which depends on its
    # other rows, is the same as in an uninterrupted run.
    batches = [
        batch
        for batch in batches_of(questions, lengths, config.batch_size)
        if any(one not in log for one in batch)
    ]
    with remembered_interrupt() as stop, AnswerProgress(len(questions), len(log)) as progress:
        for predictions in answerer.answers(batches):
            before = len(log)
            log.add(predictions)
            progress.advance(len(log) - before, sum(bool(one.error) for one in predictions))
            if stop.is_set():
                raise KeyboardInterrupt


@contextmanager
def remembered_interrupt() -> Iterator[Event]:
    """`Ctrl-C` as usual, and an event that stays set when it fell into a callback of a library.

    Python prints and drops what is raised there, so the interrupt itself would be lost.
    """
    event = Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.default_int_handler(number, frame)

    if current_thread() is not main_thread():  # only the main thread may set handlers
        yield event
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
