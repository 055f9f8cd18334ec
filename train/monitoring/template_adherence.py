"""Template adherence: does a model answer held-out questions with well-formed traces?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from media.frames import MediaError
from schemas.questions import VideoQuestion
from schemas.traces import TraceError, parse_trace
from train.data.model_inputs import VideoInputs
from train.rollouts.sampler import Sampling, sample_completions
from train.rollouts.segments import TokenBytes

_EXAMPLES = 3


@dataclass(frozen=True)
class Adherence:
    """How many greedy answers are well-formed traces that also end; faults by name.

    `truncated` answers ran into the token limit; `unusable` questions have a file that cannot be
    read. Neither counts among the faults.
    """

    template: str
    num_questions: int
    well_formed: int
    truncated: int
    faults: Mapping[str, int]
    unusable: Sequence[str]
    examples: Sequence[str]

    @property
    def share(self) -> float | None:
        """Well-formed answers among those given; None where there are none."""
        return self.well_formed / self.num_questions if self.num_questions else None

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {**vars(self), "share": self.share}


def measure_adherence(
    model: Any,
    questions: Sequence[VideoQuestion],
    inputs: VideoInputs,
    *,
    end_ids: Sequence[int],
    max_new_tokens: int,
    batch_size: int,
) -> Adherence:
    """Answer each question greedily and parse each answer."""
    token_bytes = TokenBytes(inputs.tokenizer)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
    faults: Counter[str] = Counter()
    unusable, texts = [], []
    well_formed = truncated = 0
    usable = []
    for question in questions:
        try:
            usable.append(inputs.prompt(question))
        except MediaError as error:
            unusable.append(str(error))
    for first in range(0, len(usable), batch_size):
        answers = sample_completions(
            model,
            usable[first : first + batch_size],
            group_size=1,
            sampling=sampling,
            end_ids=end_ids,
            seeds=None,
        )
        for (ids,) in answers:
            text = token_bytes.text(ids.tolist())
            texts.append(text)
            if int(ids[-1]) not in end_ids:
                truncated += 1
                continue
            try:
                parse_trace(text, inputs.template)
                well_formed += 1
            except TraceError as error:
                faults[error.reason.value] += 1
    return Adherence(
        template=inputs.template.name,
        num_questions=len(usable),
        well_formed=well_formed,
        truncated=truncated,
        faults=dict(faults.most_common()),
        unusable=unusable,
        examples=texts[:_EXAMPLES],
    )
