"""What stays the same wherever a model answers: media shown, seeds, and tokens read as a reply."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from judges.scoring.thinking import with_opened_thinking
from schemas.questions import VideoQuestion
from train.data.model_inputs import VideoInputs
from train.evaluation.eval_questions import Media
from train.evaluation.predictions import Prediction
from train.rollouts.segments import TokenBytes, rollouts_of

# Of a prompt, where its template may open the thinking.
_LAST_TOKENS = 16


class Replies:
    """Makes predictions of sampled tokens.

    `end_ids` are the tokens that end a completion; `shown` gives media to show instead of a
    question's own (a control); `seed` is the run's.
    """

    def __init__(
        self,
        inputs: VideoInputs,
        end_ids: Sequence[int],
        *,
        seed: int,
        shown: Mapping[Media, Media] | None = None,
    ) -> None:
        self.inputs = inputs
        self.end_ids = end_ids
        self._seed = seed
        self._other = shown or {}
        self._token_bytes = TokenBytes(inputs.tokenizer)

    def media(self, question: VideoQuestion) -> Media:
        """What is shown with a question."""
        return self._other.get(question.media, question.media)

    def seed_of(self, question: VideoQuestion) -> int:
        """A question's own seed, independent of its place in the file and in the batch."""
        text = f"{self._seed} {question.question_id}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1

    def reply(
        self, question: VideoQuestion, prompt_ids: Tensor, completion: Sequence[Tensor]
    ) -> Prediction:
        """The one completion of a question whose prompt has these tokens, long [P]."""
        (rollout,) = rollouts_of(completion, self._token_bytes, self.inputs.template, self.end_ids)
        # Some templates open the thinking at the end of the prompt.
        end_of_prompt = str(self.inputs.tokenizer.decode(prompt_ids[-_LAST_TOKENS:].tolist()))
        return self._prediction(
            question,
            output=with_opened_thinking(end_of_prompt, rollout.text),
            num_tokens=len(rollout.token_ids) - (not rollout.is_truncated),
            token_counts=dict(rollout.token_counts),
            finish_reason="length" if rollout.is_truncated else "end",
        )

    def error(self, question: VideoQuestion, reason: object) -> Prediction:
        """A question without an answer, on one line why."""
        return self._prediction(question, error=" ".join(str(reason).split()))

    def _prediction(self, question: VideoQuestion, **found: Any) -> Prediction:
        media = self.media(question)
        shown = () if media == question.media else tuple(ref.path for ref in media)
        return Prediction(question, shown=shown, **found)


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a completion: the checkpoint's and the tokenizer's."""
    named = model.generation_config.eos_token_id
    ids = [] if named is None else [named] if isinstance(named, int) else list(named)
    return tuple(dict.fromkeys([*ids, tokenizer.eos_token_id]))
