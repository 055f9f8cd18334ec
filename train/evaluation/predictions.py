"""What a model answered to each question, and under which conditions: the input of all scores."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.questions import VideoQuestion

NO_OBSERVATION = "no observation"


@dataclass(frozen=True)
class RunConditions:
    """What is printed beside every score, as text. Empty where it was not recorded.

    `template` is the name of the trace template that the prompt asked for; `control` describes what
    was done to the video on purpose (another clip's frames, an observation instead of the video).
    """

    model: str = ""
    template: str = ""
    prompt_id: str = ""
    frames: str = ""
    decoding: str = ""
    control: str = ""

    def sentence(self) -> str:
        """One line for screen and page."""
        named = {
            "model": self.model,
            "frames": self.frames,
            "prompt": " ".join(part for part in (self.template, self.prompt_id) if part),
            "decoding": self.decoding,
        }
        parts = [f"{name}: {value or 'not recorded'}" for name, value in named.items()]
        if self.control:
            parts.append(f"CONTROL: {self.control}")
        return " · ".join(parts)


@dataclass(frozen=True)
class Prediction:
    """The raw text that a model wrote about a question, or why there is none (`error`).

    `num_tokens` is the number of generated tokens without the end token; `token_counts` that inside
    each well-formed segment, by tag, None where tokens were not counted. `finish_reason` is `end`,
    `length` (cut off at the limit) or `no observation` (an observation reader that was given none).
    `shown` holds the paths of the media that were shown instead of the question's own.
    `published_score` is the score that a file of answers gives itself: it is compared with ours,
    never used.
    """

    question: VideoQuestion
    output: str = ""
    num_tokens: int | None = None
    token_counts: Mapping[str, int] | None = None
    finish_reason: str = ""
    error: str = ""
    shown: tuple[str, ...] = ()
    published_score: float | None = None

    @property
    def question_id(self) -> str:
        """The question's content id."""
        return self.question.question_id

    @property
    def video(self) -> str:
        """The name of the clip: questions about the same media are one cluster."""
        return " + ".join(ref.path for ref in self.question.media)


@dataclass(frozen=True)
class Predictions:
    """Predictions in file order, their conditions, and the unreadable rows, each with its reason.

    `unreadable` holds the rows that take no part: lines that cannot be read, questions that cannot
    be asked.
    """

    conditions: RunConditions
    predictions: tuple[Prediction, ...]
    unreadable: tuple[str, ...] = ()
