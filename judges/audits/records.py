"""What an audit is made of: rows to judge, people's labels, judges' verdicts."""

from dataclasses import dataclass
from typing import Literal

from judges.scoring.choices import chosen_letter, read_choices
from schemas.questions import ProblemType, VideoQuestion

Verdict = Literal["yes", "no", "unscored"]
Label = Literal[
    "sufficient", "insufficient", "consistent", "inconsistent", "stated", "none", "unsure"
]

COMMIT_FIRST = "commit-first"
ANSWER = "answer"
VARIANTS = ("sufficiency", "sufficiency-short", COMMIT_FIRST, ANSWER)  # ways a run can ask
CONSISTENCY = "think-answer"  # and the one of think-answer audits
EXTRACTION = "extract-answer"  # and the one of answer-extraction audits
IN_THE_DATA = "as in the data"  # the `variant` of an answer that the audited evaluation read
REAL = ""  # the `probe` of a verdict on the row's own observation


class AuditError(Exception):
    """The audit cannot be used as asked. One sentence for the user."""


@dataclass(frozen=True)
class Stratum:
    """One cell of the population, and how much of it was drawn.

    `population` counts the verdicts that the sample stands for, `sampled` those that are in it.
    """

    stratum: str
    source_verdict: Verdict
    problem_type: str
    data_source: str
    population: int
    sampled: int


@dataclass(frozen=True)
class AuditItem:
    """One verdict of the audited judge: its text, its word, and the rows that it stands for.

    `weight` is 1 / `inclusion_probability`: how many rows of the population this one represents.
    `position` is its place in the blind random order in which people see the rows. `draw` and
    `frame_spec` say which attempt of the build it was and which frames its author saw.
    """

    item_id: str
    question: VideoQuestion
    observation: str
    source_verdict: Verdict
    source_judge: str
    source_prompt_id: str
    video: str
    stratum: str
    weight: float
    position: int
    inclusion_probability: float = 1.0
    source_unscored_reason: str = ""
    draw: int = 0
    frame_spec: str = ""


@dataclass(frozen=True)
class AuditLabel:
    """One person's label on a row. `origin`: `page`, `file:<name>` or `sandbox truth`.

    `label` is None where the annotator took an earlier label back; only the history has those.
    """

    item_id: str
    annotator: str
    label: Label | None
    reason: str
    labelled_at: str
    origin: str


@dataclass(frozen=True)
class AuditVerdict:
    """A judge's verdict on a row, for one kind of request.

    `permutation` 0 is the question as published, `probe` "" the row's own observation, else
    `probe_text` is what was put in its place. `call_keys` are all calls that were made for it,
    `call_key` the one that decided, `seconds` and `cost_usd` what they took together (None where
    that is not known).
    """

    item_id: str
    judge: str
    variant: str
    permutation: int
    probe: str
    repeat: int
    verdict: Verdict
    unscored_reason: str
    prompt_id: str
    call_key: str
    seconds: float | None
    cost_usd: float | None
    reply: str
    call_keys: tuple[str, ...] = ()
    probe_text: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, str, int]:
        """What a later verdict replaces: item, judge, variant, permutation, probe, repeat."""
        return (
            self.item_id,
            self.judge,
            self.variant,
            self.permutation,
            self.probe,
            self.repeat,
        )


@dataclass(frozen=True)
class ShownChoice:
    """An option as pages list it."""

    letter: str
    text: str
    is_gold: bool


def shown_choices(question: VideoQuestion, *, marks_gold: bool = True) -> tuple[ShownChoice, ...]:
    """The options; of a multiple choice question the correct one is marked."""
    if question.problem_type is not ProblemType.MULTIPLE_CHOICE:
        return tuple(ShownChoice("", option, False) for option in question.options)
    gold = chosen_letter(question.solution, question.options)
    return tuple(
        ShownChoice(choice.letter, choice.text, marks_gold and choice.letter == gold)
        for choice in read_choices(question.options)
    )
