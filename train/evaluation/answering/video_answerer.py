"""A model answers questions about videos, a batch at a time.

A question whose media cannot be read becomes one error row. Where memory runs out, the batch is
halved for the rest of the run; a question that does not fit alone is an error row too.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from judges.backends.local_model import is_out_of_memory, release_memory
from media.frames import MediaError
from schemas.questions import VideoQuestion
from train.data.model_inputs import VideoInputs
from train.evaluation.answering.replies import Replies, end_ids
from train.evaluation.eval_questions import Media
from train.evaluation.predictions import Prediction
from train.rollouts.sampler import sample_completions
from train.rollouts.token_sampling import Sampling

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
        self._replies = Replies(inputs, end_ids(model, inputs.tokenizer), seed=seed, shown=shown)
        self._say = say
        self._most_at_once: int | None = None

    def answers(self, batches: Iterable[Batch]) -> Generator[list[Prediction]]:
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
        media = [self._replies.media(question) for question in batch]
        self._inputs.loader.prefetch([ref for refs in media for ref in refs])
        return [self._show(question, refs) for question, refs in zip(batch, media, strict=True)]

    def _show(self, question: VideoQuestion, media: Media) -> _Shown:
        try:
            return _Shown(question, self._inputs.prompt(question, media=media))
        except (MediaError, ValueError) as error:
            # Never a prompt without its video: the row is an error that names the file.
            return _Shown(question, None, str(error))

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
            done.get(one.question.question_id) or self._replies.error(one.question, one.error)
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
        reason = "out of memory: the question does not fit even alone"
        return {question.question_id: self._replies.error(question, reason)}

    def _sample(self, part: Sequence[_Shown]) -> list[Prediction]:
        completions = sample_completions(
            self._model,
            [one.prompt for one in part if one.prompt is not None],
            group_size=1,
            sampling=self._sampling,
            end_ids=self._replies.end_ids,
            seeds=[self._replies.seed_of(one.question) for one in part],
        )
        return [
            self._replies.reply(one.question, one.prompt["input_ids"][0], sampled)
            for one, sampled in zip(part, completions, strict=True)
            if one.prompt is not None
        ]
