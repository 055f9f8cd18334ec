"""What an audit asks about its rows: the words for yes and no, and the instructions for people.

All kinds share tables, statistics and pages. A row's `observation` is the text that is judged, its
question's `solution` the answer that the text is held against.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from judges.audits.records import CONSISTENCY, EXTRACTION, VARIANTS, Label

KindName = Literal["sufficiency", "think-answer", "answer-extraction"]


@dataclass(frozen=True)
class AuditKind:
    """The wording of a kind of audit.

    `yes` and `no` are the labels that mean Yes and No, `kept` and `rejected` say what a judge's Yes
    and No do to a row, `fine` is the word for a rejected row that people label Yes. `opposite`
    names the share of rows that are a No, where that is the number of interest. `variants` are the
    prompts of a run, the usual one first; without `has_permutations` there are no permutations and
    no probes. With `yes_is_an_answer` the label Yes comes with an answer, in the place of a reason,
    and judges are compared by their answers. Without `answer_title` no answer is shown.
    """

    name: KindName
    yes: Label
    no: Label
    keys: Mapping[Label, str]
    kept: str
    rejected: str
    fine: str
    rows: str
    introduction: str
    task: str
    answer_title: str
    text_title: str
    variants: tuple[str, ...]
    shows_media: bool = True
    has_permutations: bool = True
    opposite: str = ""
    yes_is_an_answer: bool = False
    text_hint: str = "Reason (R to write one, Enter when done)"
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[Label, ...]:
        """What a person can say of a row."""
        return (self.yes, self.no, "unsure")


SUFFICIENCY = AuditKind(
    name="sufficiency",
    yes="sufficient",
    no="insufficient",
    keys={"sufficient": "S", "insufficient": "I", "unsure": "U"},
    kept="kept",
    rejected="rejected",
    fine="fine",
    rows="observations",
    introduction=(
        "Each row has a question about a video, its correct answer, and an observation that "
        "somebody wrote while looking at the video. You say whether the answer can be deduced from "
        "the observation alone."
    ),
    task=(
        "Can the correct answer be deduced from the observation alone? Assume nothing that it does "
        "not say; a statement of the answer itself supports nothing."
    ),
    answer_title="Correct answer",
    text_title="Observation",
    variants=VARIANTS,
)
THINK_ANSWER = AuditKind(
    name="think-answer",
    yes="consistent",
    no="inconsistent",
    keys={"consistent": "C", "inconsistent": "I", "unsure": "U"},
    kept="called consistent",
    rejected="called a mismatch",
    fine="consistent",
    rows="reasonings",
    introduction=(
        "Each row has a question about a video, the reasoning that a model wrote, and the answer "
        "that it gave. You say whether the reasoning ends up with that answer; whether either of "
        "them is right does not matter."
    ),
    task=(
        "Does the reasoning, by its own words, end up with the given answer? Later text weighs "
        "more than earlier text. Unsure: it decides for no option."
    ),
    answer_title="Given answer",
    text_title="Reasoning",
    variants=(CONSISTENCY,),
    shows_media=False,
    has_permutations=False,
    opposite="mismatch",
    notes=(
        "A reasoning that concludes nothing is unscored here and left out of the mismatch, as in "
        "VideoP2R (arXiv 2511.11113, section 12).",
    ),
)
ANSWER_EXTRACTION = AuditKind(
    name="answer-extraction",
    yes="stated",
    no="none",
    keys={"stated": "S", "none": "N", "unsure": "U"},
    kept="read",
    rejected="read as no answer",
    fine="stated",
    rows="replies",
    introduction=(
        "Each row has a question and the reply that a model wrote to it. You say which answer the "
        "reply states; whether it is correct does not matter."
    ),
    task=(
        "Which answer does the reply commit to? Write it into the field below (the letter of an "
        "option, a number, times in seconds as start to end, or the reply's own words) and choose "
        "Stated. None: it states no answer, or several without choosing."
    ),
    answer_title="",
    text_title="Reply",
    variants=(EXTRACTION,),
    shows_media=False,
    has_permutations=False,
    yes_is_an_answer=True,
    text_hint="The answer that the reply states (R to write it, Enter when done)",
)
KINDS: dict[str, AuditKind] = {
    kind.name: kind for kind in (SUFFICIENCY, THINK_ANSWER, ANSWER_EXTRACTION)
}
