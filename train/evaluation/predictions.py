"""What a model answered to each question, and under which conditions: what all scores come from."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.questions import VideoQuestion

NO_OBSERVATION = "no observation"


@dataclass(frozen=True)
class RunFacts:
    """What is printed beside every score, in words. Empty where nobody wrote it down.

    `template` is the name of the trace template that the prompt asked for; `control` says what was
    done to the video on purpose (another clip's frames, an observation in its place).
    """

    model: str = ""
    template: str = ""
    prompt_id: str = ""
    frames: str = ""
    decoding: str = ""
    control: str = ""

    def sentence(self) -> str:
        """One line for screen and page."""
        told = {
            "model": self.model,
            "frames": self.frames,
            "prompt": " ".join(part for part in (self.template, self.prompt_id) if part),
            "decoding": self.decoding,
        }
        parts = [f"{name}: {value or 'not recorded'}" for name, value in told.items()]
        if self.control:
            parts.append(f"CONTROL: {self.control}")
        return " · ".join(parts)


@dataclass(frozen=True)
class Prediction:
    """The raw text that a model wrote about a question, or why there is none (`error`).

    `num_tokens` counts generated tokens, without the end token; `token_counts` those inside each
    well-formed segment, by tag, None where nobody counted. `finish_reason` is `end`, `length` (cut
    off at the limit) or, for a reader who was given no text, `no observation`. `shown` holds the
    paths of the media that were shown where they were not the question's own. `published_score` is
    the score that a file of answers gives itself: it is compared with ours, never used.
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
        """What names the clip: questions on the same media are one cluster."""
        return " + ".join(ref.path for ref in self.question.media)
