"""Completions from a vLLM server: many groups in flight, their tokens as they come.

    rollouts = VllmRollouts(VllmClient("http://127.0.0.1:8000"), inputs)
    rollouts.update_weights(model)
    pending = rollouts.start(questions, prompts, group_size=8, ...)
    drawn = pending.wait()

Each group is one streamed request. The prompt's token ids that come back must be those that the
trainer learns from; log-probs are the sampled distribution's.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from schemas.questions import MediaRef, VideoQuestion
from train.data.model_inputs import VideoInputs
from train.rollouts.streaming import Drawn, Reader, RolloutServerError
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.client import VllmClient
from train.rollouts.vllm.clip_format import LOADER
from train.rollouts.vllm.requests import Requests
from train.rollouts.vllm.weights import PolicyWeights, WeightSender, open_sender

_ROUTE = "/v1/chat/completions"
_IN_FLIGHT = 64


class VllmRollouts:
    """A `train.rollouts.streaming.RolloutEngine`: completions by a server of the policy's model.

    `rank` is the number of this process: process 0 sends the weights, every process asks for its
    own prompts. `dtype` is what weights are sent in. At most `in_flight` groups of this process are
    asked for at once; the server's own queue decides the rest. Close it at the end.
    """

    def __init__(
        self,
        client: VllmClient,
        inputs: VideoInputs,
        *,
        rank: int = 0,
        dtype: torch.dtype | None = None,
        trainer_host: str | None = None,
        in_flight: int = _IN_FLIGHT,
    ) -> None:
        self._client, self._rank, self._dtype = client, rank, dtype
        self._trainer_host = trainer_host
        self._requests = Requests(inputs, _model_name(client))
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="rollouts")
        self._reading = Lock()
        self._sender: WeightSender | None = None
        self._is_closed = False

    def pause(self) -> None:
        """Let what is in flight end, and forget what old weights computed; in one process.

        All caches are cleared: prefixes, and features of media that were seen before.
        """
        self._client.post("/pause", mode="wait", clear_cache=True)

    def send_weights(self, model: Any) -> None:
        """Send the weights of `model`; called in every process, the server is paused."""
        if self._sender is None:
            self._weights = PolicyWeights(model, self._dtype)
            self._sender = open_sender(
                self._client, self._weights, rank=self._rank, trainer_host=self._trainer_host
            )
        self._weights.take(model)
        self._sender.send_weights()

    def resume(self) -> None:
        """Go on; in one process."""
        self._client.post("/resume")

    def refuse_other_weights(self) -> None:
        """Raise RolloutServerError where another run replaced them, or the server restarted."""
        self._client.refuse_other_weights()

    def start(
        self,
        questions: Sequence[VideoQuestion],
        prompts: Sequence[Mapping[str, Tensor]],
        *,
        group_size: int,
        sampling: Sampling,
        end_ids: Sequence[int],
        seeds: Sequence[int],
        reader: Reader | None = None,
        media: Sequence[Sequence[MediaRef]] | None = None,
    ) -> "PendingRollouts":
        """Ask for `group_size` completions of each prompt, and return at once.

        `reader` gets the tokens of each row as they come, from one thread at a time. `media` gives
        what is shown with each question instead of its own files.
        """

        def read(row: int, tokens: list[int]) -> None:
            if self._is_closed:
                raise RolloutServerError("the run ends; its completions are not waited for")
            if reader is not None:
                with self._reading:
                    reader.read(row, tokens)

        def group(number: int) -> "_Group":
            found = _Group(group_size, [*map(int, prompts[number]["input_ids"][0])])
            body = self._requests.body(
                questions[number],
                group_size=group_size,
                sampling=sampling,
                end_ids=end_ids,
                seed=seeds[number],
                media=None if media is None else media[number],
            )
            try:
                for event in self._client.events(_ROUTE, body):
                    for own, fresh in found.add(event):
                        read(number * group_size + own, fresh)
                found.check(sampling.max_new_tokens, end_ids)
            except RolloutServerError as error:
                raise _explained(error, questions[number]) from error
            return found

        return PendingRollouts([self._pool.submit(group, own) for own in range(len(questions))])

    def close(self) -> None:
        """Wait for nothing that is still under way."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


class PendingRollouts:
    """Groups that are being sampled."""

    def __init__(self, groups: "Sequence[Future[_Group]]") -> None:
        self._groups = groups

    def wait(self) -> Drawn:
        """The completions of all groups. Raises RolloutServerError, and MediaError of a file."""
        groups = [each.result() for each in self._groups]
        return Drawn(
            [[torch.tensor(tokens) for tokens in group.tokens] for group in groups],
            [[torch.tensor(logprobs) for logprobs in group.logprobs] for group in groups],
        )


class _Group:
    """The completions of one prompt, as the events of a stream bring them."""

    def __init__(self, size: int, prompt_ids: list[int]) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(size)]
        self.logprobs: list[list[float]] = [[] for _ in range(size)]
        self._ended: dict[int, str] = {}
        self._prompt_ids = prompt_ids
        self._has_prompt = False

    def add(self, event: Mapping[str, Any]) -> list[tuple[int, list[int]]]:
        """Take an event's tokens; the completions that grew, by number, with what is new."""
        if (theirs := event.get("prompt_token_ids")) is not None:
            _refuse_other_prompt(self._prompt_ids, theirs)
            self._has_prompt = True
        grown = []
        try:
            for choice in event["choices"]:
                number, fresh = int(choice["index"]), choice.get("token_ids") or []
                given = (choice.get("logprobs") or {}).get("content") or []
                self.tokens[number] += fresh
                self.logprobs[number] += [float(each["logprob"]) for each in given]
                if choice.get("finish_reason"):
                    self._ended[number] = choice["finish_reason"]
                if fresh:
                    grown.append((number, fresh))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RolloutServerError(
                f"an event of the stream is none of vLLM's: {error}"
            ) from error
        return grown

    def check(self, max_new_tokens: int, end_ids: Sequence[int]) -> None:
        """Raise RolloutServerError unless all completions are whole."""
        if not self._has_prompt:
            raise RolloutServerError("no token ids of the prompt came back")
        for number, (tokens, logprobs) in enumerate(zip(self.tokens, self.logprobs, strict=True)):
            has_ended = bool(tokens) and (tokens[-1] in end_ids or len(tokens) == max_new_tokens)
            if not has_ended or len(tokens) != len(logprobs):
                raise RolloutServerError(
                    f"completion {number} ended with {self._ended.get(number)} after {len(tokens)}"
                    f" tokens and {len(logprobs)} log-probs"
                )


def _refuse_other_prompt(ours: list[int], theirs: list[int]) -> None:
    if ours == theirs:
        return
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((n for n, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    raise RolloutServerError(
        f"the server makes another prompt: {len(theirs)} token ids for our {len(ours)}, the first"
        f" difference at place {place}; serve the very model, processor and chat template that"
        " --model names"
    )


def _explained(error: RolloutServerError, question: VideoQuestion) -> RolloutServerError:
    """The error with the question's name, and what to do where our plugin is not in the server."""
    advice = ""
    if f"{LOADER!r}" in str(error) or f"loader {LOADER}" in str(error):
        advice = "; install this project where vLLM runs: its plugin p2r reads the clips"
    return type(error)(f"question {question.question_id}: {error}{advice}")


def _model_name(client: VllmClient) -> str:
    """The name of the server's model. Raises RolloutServerError."""
    try:
        return str(client.get("/v1/models")["data"][0]["id"])
    except (LookupError, TypeError) as error:
        raise RolloutServerError(f"the vLLM server {client.url} names no model") from error
