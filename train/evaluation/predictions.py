"""What a model answered to each question, and under which conditions: what all scores come from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from schemas.questions import VideoQuestion


@dataclass(frozen=True)
class RunFacts:
    """What is printed beside every score, in words. Empty where nobody wrote it down.

    `template` is the name of the trace template that the prompt asked for.
    """

    model: str = ""
    template: str = ""
    prompt_id: str = ""
    frames: str = ""
    decoding: str = ""

    def sentence(self) -> str:
        """One line for screen and page."""
        told = {
            "model": self.model,
            "frames": self.frames,
            "prompt": " ".join(part for part in (self.template, self.prompt_id) if part),
            "decoding": self.decoding,
        }
        return " · ".join(f"{name}: {value or 'not recorded'}" for name, value in told.items())


@dataclass(frozen=True)
class Prediction:
    """The raw text that a model wrote about a question, or why there is none (`error`).

    `num_tokens` counts generated tokens, without the end token; `finish_reason` is `end` or
    `length` (cut off at the limit). `published_score` is the score that a file of answers gives
    itself: it is compared with ours, never used.
    """

    question: VideoQuestion
    output: str = ""
    num_tokens: int | None = None
    finish_reason: str = ""
    error: str = ""
    published_score: float | None = None

    @property
    def question_id(self) -> str:
        """The question's content id."""
        return self.question.question_id

    @property
    def video(self) -> str:
        """What names the clip: questions on the same media are one cluster."""
        return " + ".join(ref.path for ref in self.question.media)

    def as_json(self) -> dict[str, Any]:
        """A JSON object, for one line of a JSON Lines file."""
        return asdict(self) | {"question": self.question.model_dump(mode="json")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Prediction":
        """What `as_json` wrote. Raises TypeError or ValueError for anything else."""
        fields = dict(value)
        question = VideoQuestion.model_validate(fields.pop("question", None))
        return cls(question=question, **fields)
