"""A checkpoint answers a question file: opens model and media, resumes, returns predictions."""

import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, current_thread, main_thread
from types import FrameType
from typing import Any

from cli.config import UsageError, say
from cli.console import quieten_libraries
from judges.backends.base import BackendUnavailableError
from judges.backends.budget import StopRequested
from judges.backends.local import find_folder
from judges.backends.local_model import release_memory
from judges.backends.model_files.identity import weights_id
from judges.backends.model_files.texts import refuse_foreign_tokens
from schemas.prompting import task_prompt, template_of_model
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.evaluation.answering.answer_log import AnswerLog
from train.evaluation.answering.replies import Replies, end_ids
from train.evaluation.answering.served_answerer import (
    ServedAnswerer,
    refuse_missing_server,
    send_and_check,
)
from train.evaluation.answering.video_answerer import VideoAnswerer
from train.evaluation.eval_questions import (
    SPECIMEN,
    EvalQuestions,
    Media,
    batches_of,
    read_eval_questions,
    shuffled_media,
)
from train.evaluation.options import EvaluateConfig
from train.evaluation.predictions import Prediction, Predictions, RunConditions
from train.evaluation.progress import AnswerProgress
from train.modeling.loading import load_policy, load_processor
from train.rollouts.streaming import RolloutServerError
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.client import VllmClient

Answers = Generator[list[Prediction]]


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
    """Answer what `log` holds no answer to. Raises UsageError, StopRequested."""
    quieten_libraries()
    sampling = _sampling(config)
    assert config.model is not None
    inputs = VideoInputs(
        load_processor(config.model),
        loader,
        TEMPLATES[template],
        rope_positions=config.rope_positions,
    )
    source = _served if config.rollouts == "vllm" else _in_this_process
    answers = source(config, inputs, sampling, questions, shown, log)
    with (
        closing(answers),
        remembered_interrupt() as stop,
        AnswerProgress(len(questions), len(log)) as progress,
    ):
        try:
            for predictions in answers:
                before = len(log)
                log.add(predictions)
                progress.advance(len(log) - before, sum(bool(one.error) for one in predictions))
                if stop.is_set():
                    raise KeyboardInterrupt
        except RolloutServerError as error:
            raise StopRequested(str(error)) from error


def _sampling(config: EvaluateConfig) -> Sampling:
    try:
        return Sampling(
            config.max_new_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            repetition_penalty=config.repetition_penalty,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _in_this_process(
    config: EvaluateConfig,
    inputs: VideoInputs,
    sampling: Sampling,
    questions: Sequence[VideoQuestion],
    shown: dict[Media, Media],
    log: AnswerLog,
) -> Answers:
    model = _policy(config, inputs)
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
    return answerer.answers(batches)


def _served(
    config: EvaluateConfig,
    inputs: VideoInputs,
    sampling: Sampling,
    questions: Sequence[VideoQuestion],
    shown: dict[Media, Media],
    log: AnswerLog,
) -> Answers:
    """By a vLLM server; the model is here until the server has its weights and one check passed."""
    assert config.vllm_url is not None
    client = VllmClient(config.vllm_url, seconds=config.vllm_timeout_seconds)
    refuse_missing_server(client)
    missing = [one for one in questions if one not in log]
    model = _policy(config, inputs)
    replies = Replies(inputs, end_ids(model, inputs.tokenizer), seed=config.seed, shown=shown)
    send_and_check(client, model, replies, missing, trainer_host=config.trainer_host)
    del model
    release_memory()
    say(f"the vLLM server {client.url} has the weights of {config.model} and answers")
    answerer = ServedAnswerer(client, replies, sampling, most_at_once=config.concurrency)
    return answerer.answers(missing)


def _policy(config: EvaluateConfig, inputs: VideoInputs) -> Any:
    assert config.model is not None
    model = load_policy(
        config.model,
        dtype=config.dtype,
        device=config.device or "auto",
        attention=config.attention,
    )
    refuse_foreign_tokens(config.model, model, inputs.processor)
    return model


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
