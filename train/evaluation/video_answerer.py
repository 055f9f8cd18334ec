"""A model answers questions about videos, a batch at a time.

A question whose media cannot be read becomes one error row. Where memory runs out, the batch is
halved for the rest of the run; a question that does not fit alone is an error row too.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from judges.backends.local_model import is_out_of_memory, release_memory
from judges.scoring.thinking import with_opened_thinking
from media.frames import MediaError
from schemas.questions import VideoQuestion
from train.data.model_inputs import VideoInputs
from train.evaluation.eval_questions import Media
from train.evaluation.predictions import Prediction
from train.rollouts.sampler import sample_completions
from train.rollouts.segments import TokenBytes, rollouts_of
from train.rollouts.token_sampling import Sampling

# Of a prompt, where its template may open the thinking.
_LAST_TOKENS = 16

Say = Callable[[str], None]
Batch = Sequence[VideoQuestion]


@dataclass(frozen=True)
class _Shown:
    """A question with its prompt, or the reason why it has none."""

    question: VideoQuestion
    prompt: Mapping[str, Tensor] | None
    error: str = ""


class VideoAnswerer:
    """One model that answers about videos.

    `shown` gives media to show instead of a question's own (a control). `say` gets a line when the
    batch is halved.
    """

    def __init__(
        self,
        model: Any,
        inputs: VideoInputs,
        sampling: Sampling,
        *,
        seed: int,
        shown: Mapping[Media, Media] | None = None,
        say: Say = print,
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._sampling = sampling
        self._seed = seed
        self._other = shown or {}
        self._say = say
        self._token_bytes = TokenBytes(inputs.tokenizer)
        self._end_ids = end_ids(model, inputs.tokenizer)
        self._most_at_once: int | None = None

    def answers(self, batches: Iterable[Batch]) -> Iterator[list[Prediction]]:
        """The predictions of each batch, in its order; the next batch is prepared meanwhile."""
        with ThreadPoolExecutor(1, thread_name_prefix="prompts") as preparing:
            waiting: Future[list[_Shown]] | None = None
            for batch in batches:
                ready, waiting = waiting, preparing.submit(self._prepare, batch)
                if ready is not None:
                    yield self._answer(ready.result())
            if waiting is not None:
                yield self._answer(waiting.result())

    def _prepare(self, batch: Batch) -> list[_Shown]:
        media = [self._media(question) for question in batch]
        self._inputs.loader.prefetch([ref for refs in media for ref in refs])
        return [self._show(question, refs) for question, refs in zip(batch, media, strict=True)]

    def _show(self, question: VideoQuestion, media: Media) -> _Shown:
        try:
            return _Shown(question, self._inputs.prompt(question, media=media))
        except (MediaError, ValueError) as error:
            # Never a prompt without its video: the row is an error that names the file.
            return _Shown(question, None, " ".join(str(error).split()))

    def _media(self, question: VideoQuestion) -> Media:
        return self._other.get(question.media, question.media)

    def _answer(self, batch: Sequence[_Shown]) -> list[Prediction]:
        done: dict[str, Prediction] = {}
        ready = [one for one in batch if one.prompt is not None]
        while ready:
            part = ready[: self._most_at_once]
            has_memory = True
            try:
                done |= {one.question_id: one for one in self._sample(part)}
            except (RuntimeError, MemoryError) as error:
                if not isinstance(error, MemoryError) and not is_out_of_memory(error):
                    raise
                has_memory = False
            if not has_memory:  # only here has the failed pass released its tensors
                done |= self._without_memory(part)
            ready = [one for one in ready if one.question.question_id not in done]
        return [
            done.get(one.question.question_id) or self._prediction(one.question, error=one.error)
            for one in batch
        ]

    def _without_memory(self, part: Sequence[_Shown]) -> dict[str, Prediction]:
        """Halve the batch, or make the one question that is too large an error row."""
        release_memory()
        if len(part) > 1:
            self._most_at_once = len(part) // 2
            self._say(
                f"out of memory with {len(part)} questions at once; going on with "
                f"{self._most_at_once}"
            )
            return {}
        question = part[0].question
        return {
            question.question_id: self._prediction(
                question, error="out of memory: the question does not fit even alone"
            )
        }

    def _sample(self, part: Sequence[_Shown]) -> list[Prediction]:
        completions = sample_completions(
            self._model,
            [one.prompt for one in part if one.prompt is not None],
            group_size=1,
            sampling=self._sampling,
            end_ids=self._end_ids,
            seeds=[self._seed_of(one.question) for one in part],
        )
        predictions = []
        for one, sampled in zip(part, completions, strict=True):
            assert one.prompt is not None
            (rollout,) = rollouts_of(
                sampled, self._token_bytes, self._inputs.template, self._end_ids
            )
            predictions.append(
                self._prediction(
                    one.question,
                    output=with_opened_thinking(self._end_of(one.prompt), rollout.text),
                    num_tokens=len(rollout.token_ids) - (not rollout.is_truncated),
                    token_counts=dict(rollout.token_counts),
                    finish_reason="length" if rollout.is_truncated else "end",
                )
            )
        return predictions

    def _end_of(self, prompt: Mapping[str, Tensor]) -> str:
        """The last words of a prompt: some templates open the thinking."""
        return str(self._inputs.tokenizer.decode(prompt["input_ids"][0, -_LAST_TOKENS:].tolist()))

    def _prediction(self, question: VideoQuestion, **found: Any) -> Prediction:
        media = self._media(question)
        shown = () if media == question.media else tuple(ref.path for ref in media)
        return Prediction(question, shown=shown, **found)

    def _seed_of(self, question: VideoQuestion) -> int:
        """A question's own seed, independent of its place in the file and in the batch."""
        text = f"{self._seed} {question.question_id}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a completion: the checkpoint's and the tokenizer's."""
    named = model.generation_config.eos_token_id
    ids = [] if named is None else [named] if isinstance(named, int) else list(named)
    return tuple(dict.fromkeys([*ids, tokenizer.eos_token_id]))
