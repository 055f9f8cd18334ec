"""A vLLM server answers questions about videos, many at a time, with the weights of --model.

The server is sent the weights first, as reinforcement learning sends them, so it can serve any
checkpoint of that architecture and size. One question's log-probs are then compared with those of
the model in this process, and after each answer the server is asked whether its weights are still
the ones that it was sent: nothing is ever scored that another model has said.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from cli.config import UsageError
from media.frames import MediaError
from schemas.questions import VideoQuestion
from train.evaluation.answering.replies import Replies
from train.evaluation.predictions import Prediction
from train.modeling.packed_forward import PromptGroup, group_logprobs
from train.rollouts.streaming import RolloutServerError
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.client import RequestRefusedError, VllmClient
from train.rollouts.vllm.source import VllmRollouts
from train.trainers.sampler_check import sampler_tolerance

_CHECKED = Sampling(max_new_tokens=16)
_CHECKED_COMPLETIONS = 2


def refuse_missing_server(client: VllmClient) -> None:
    """Raise UsageError unless a server that takes weights answers: before a model is loaded."""
    try:
        for route in ("/v1/models", "/weight_info"):
            client.get(route)
    except RolloutServerError as error:
        raise UsageError(f"--vllm-url: {error}") from None


def send_and_check(
    client: VllmClient,
    model: Any,
    replies: Replies,
    questions: Sequence[VideoQuestion],
    *,
    trainer_host: str | None = None,
) -> None:
    """Send `model` to the server, and see by one of the questions that it is what answers.

    The question is the first one with a video, where there is one, whose files can be read; where
    there is none, nothing will be asked. Raises UsageError where the server is not there, cannot
    take the weights, makes another prompt, or gives other log-probs.
    """
    engine = None
    try:
        engine = VllmRollouts(client, replies.inputs, trainer_host=trainer_host)
        engine.pause()
        engine.send_weights(model)
        engine.resume()
        for question in sorted(questions, key=_has_no_video):
            try:
                prompt = replies.inputs.prompt(question, media=replies.media(question))
            except (MediaError, ValueError):
                continue  # it becomes an error row
            _refuse_other_logprobs(engine, model, replies, question, prompt)
            return
    except RolloutServerError as error:
        raise UsageError(f"--vllm-url: {error}") from None
    finally:
        if engine is not None:
            engine.close()


def _has_no_video(question: VideoQuestion) -> bool:
    return all(ref.kind != "video" for ref in question.media)


def _refuse_other_logprobs(
    engine: VllmRollouts,
    model: Any,
    replies: Replies,
    question: VideoQuestion,
    prompt: dict[str, Tensor],
) -> None:
    """Raise UsageError where the server's log-probs are not the model's, RolloutServerError."""
    drawn = engine.start(
        [question],
        [prompt],
        group_size=_CHECKED_COMPLETIONS,
        sampling=_CHECKED,
        end_ids=replies.end_ids,
        seeds=[replies.seed_of(question)],
        media=[replies.media(question)],
    ).wait()
    assert drawn.logprobs is not None
    on_device = {name: value.to(model.device) for name, value in prompt.items()}
    with torch.no_grad():
        (scores,) = group_logprobs(model, [PromptGroup(on_device, drawn.tokens[0])])
    gaps = torch.cat(
        [
            (own[: len(theirs)].float().cpu() - theirs).abs()
            for own, theirs in zip(scores.logprobs, drawn.logprobs[0], strict=True)
        ]
    )
    allowed = sampler_tolerance(model.dtype, _CHECKED)
    assert allowed is not None
    largest, mean = float(gaps.max()), float(gaps.mean())
    if not (largest <= allowed.largest and mean <= allowed.mean):
        raise UsageError(
            f"--vllm-url: the server answers with log-probs that differ from those of --model by "
            f"{mean:.4f} on average and {largest:.4f} at most ({allowed.mean:g} and "
            f"{allowed.largest:g} are allowed): it serves a model of another size, computes in "
            "another --dtype, or has other positions (--rope-positions); start it with the folder "
            "that --model names"
        )


class ServedAnswerer:
    """Asks the server questions; its weights are those that `client` has sent.

    `most_at_once` questions are under way at a time.
    """

    def __init__(
        self, client: VllmClient, replies: Replies, sampling: Sampling, *, most_at_once: int
    ) -> None:
        self._client, self._replies, self._sampling = client, replies, sampling
        self._most_at_once = most_at_once
        self._engine = VllmRollouts(client, replies.inputs, in_flight=most_at_once)
        self._processor = Lock()

    def answers(self, questions: Sequence[VideoQuestion]) -> Generator[list[Prediction]]:
        """Predictions as they come, in no order. Raises RolloutServerError where the server fails.

        A question whose files cannot be read, or that the server refuses (longer than its
        --max-model-len), is an error row.
        """
        todo = iter(questions)
        with ThreadPoolExecutor(self._most_at_once, thread_name_prefix="answers") as pool:
            try:
                first = islice(todo, 2 * self._most_at_once)
                waiting = {pool.submit(self._answer, one) for one in first}
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield [one.result() for one in done if one.exception() is None]
                    for one in done:
                        one.result()  # raises what has failed, once all others are stored
                    waiting |= {pool.submit(self._answer, one) for one in islice(todo, len(done))}
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self._engine.close()
                self._client.hang_up()

    def _answer(self, question: VideoQuestion) -> Prediction:
        media = self._replies.media(question)
        try:
            prompt_ids = self._prompt_ids(question)
        except (MediaError, ValueError) as error:
            return self._replies.error(question, error)
        try:
            drawn = self._engine.start(
                [question],
                [{"input_ids": prompt_ids}],
                group_size=1,
                sampling=self._sampling,
                end_ids=self._replies.end_ids,
                seeds=[self._replies.seed_of(question)],
                media=[media],
            ).wait()
        except RequestRefusedError as error:
            return self._replies.error(question, error)
        self._client.refuse_other_weights()
        with self._processor:
            return self._replies.reply(question, prompt_ids[0], drawn.tokens[0])

    def _prompt_ids(self, question: VideoQuestion) -> Tensor:
        """long [1, P]. Pixels of one prompt exist at a time; files are decoded side by side."""
        inputs, media = self._replies.inputs, self._replies.media(question)
        for ref in media:
            inputs.loader.encoded(ref)
        with self._processor:
            return inputs.prompt(question, media=media)["input_ids"]
