"""Completions while they are being sampled: who samples them, and who reads them as they grow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from schemas.questions import VideoQuestion
from train.modeling.vision_cache import MediaFeatures
from train.rollouts.segments import TokenBytes
from train.rollouts.token_sampling import Sampling


class Progress(Protocol):
    """Called now and then, while completions grow."""

    def __call__(self, tokens: Tensor, first_row: int) -> None:
        """The tokens so far of the rows that grow, long [rows, steps], from `first_row` on; rows
        count the completions of all prompts. Tokens behind a row's end token are meaningless."""


@dataclass(frozen=True)
class Drawn:
    """Completions of several prompts, the groups in the prompts' order."""

    tokens: list[list[Tensor]]
    """long [C] of each completion."""
    logprobs: list[list[Tensor]] | None
    """float [C]: log-probs of the tokens in the distribution that they were sampled from; None
    where the source does not know them."""


class RolloutServerError(Exception):
    """What a server that samples rollouts did not do, in one sentence."""


class RolloutSource(Protocol):
    """Samples completions in this process: `train.rollouts.sampler.sample_rollouts`, or a replay.

    A source that knows no log-probs may give the tokens alone.
    """

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Mapping[str, Tensor]],
        *,
        group_size: int,
        sampling: Sampling,
        end_ids: Sequence[int],
        seeds: Sequence[int] | None,
        features: Sequence[MediaFeatures] | None = None,
        share_prompts: bool = True,
        progress: Progress | None = None,
    ) -> Drawn | list[list[Tensor]]:
        """`group_size` completions of each prompt, long [C]; calls `progress` where it can."""


class Reader(Protocol):
    """Reads completions that grow each at its own pace."""

    def read(self, row: int, tokens: Sequence[int]) -> None:
        """The next tokens of a row; rows count the completions of all prompts."""


class PendingDraw(Protocol):
    """Completions on their way."""

    def wait(self) -> Drawn:
        """All of them."""


class RolloutEngine(Protocol):
    """Samples completions elsewhere, with weights that it is sent: `train.rollouts.vllm`.

    `pause` and `resume` are called in one process, around `send_weights` in every process, and
    `refuse_other_weights` in that one process.
    """

    def pause(self) -> None:
        """Let completions under way end; forget what old weights computed."""

    def send_weights(self, model: Any) -> None:
        """Take the weights of `model`."""

    def resume(self) -> None:
        """Go on."""

    def refuse_other_weights(self) -> None:
        """Raise RolloutServerError where the weights are no longer those that were sent last."""

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
    ) -> PendingDraw:
        """Begin `group_size` completions of each prompt, and return."""


class ReadAlong:
    """A `Progress` that calls `show` with each row's text so far, until it returns True.

    Rows are `group_size` completions of each question, in order. A row is read no further once it
    has ended or `show` has returned True for it.
    """

    def __init__(
        self,
        questions: Sequence[VideoQuestion],
        group_size: int,
        end_ids: Sequence[int],
        token_bytes: TokenBytes,
        show: Callable[[VideoQuestion, str], bool],
    ) -> None:
        self._questions, self._group_size = questions, group_size
        self._end_ids, self._token_bytes, self._show = frozenset(end_ids), token_bytes, show
        self._read = dict.fromkeys(range(len(questions) * group_size), b"")
        self._num_seen: dict[int, int] = {}

    def __call__(self, tokens: Tensor, first_row: int) -> None:
        """Read the new tokens of these rows, as far as they are still of interest."""
        fresh = tokens[:, self._num_seen.get(first_row, 0) :].tolist()
        self._num_seen[first_row] = tokens.shape[1]
        for row, own in enumerate(fresh, start=first_row):
            self.read(row, own)

    def read(self, row: int, tokens: Sequence[int]) -> None:
        """Read the next tokens of one row, if it is still of interest."""
        if row not in self._read:
            return
        end = next((n for n, each in enumerate(tokens) if each in self._end_ids), None)
        read = self._read[row] + self._token_bytes.join(tokens[:end])
        question = self._questions[row // self._group_size]
        has_seen_enough = self._show(question, read.decode("utf-8", errors="replace"))
        if has_seen_enough or end is not None:
            del self._read[row]
        else:
            self._read[row] = read
