"""The best-constant baseline: the score of the best guess that knows the questions, not the clips.

A model that does not beat it has learned nothing from the pictures. It depends on the questions.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from judges.scoring.answer_score import score_answer
from schemas.questions import ProblemType, VideoQuestion

PASS_SCORE = 0.6


class Guess(NamedTuple):
    """The best constant answer to `questions` questions: mean metric, and share that passes."""

    questions: int
    guess: str
    score: float
    pass_rate: float


@dataclass(frozen=True)
class ConstantBaseline:
    """Best guesses per kind of question, their means per problem type and overall.

    `given_the_text` guesses once per exact wording. It is measured on the answers that it was
    fitted to, so it lies above chance if few questions share a wording.
    """

    by_kind: dict[str, Guess]
    by_type: dict[str, float]
    overall: float
    given_the_text: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for `world.json`."""
        rounded = {
            kind: {**guess._asdict(), "score": round(guess.score, 4)}
            | {"pass_rate": round(guess.pass_rate, 4)}
            for kind, guess in self.by_kind.items()
        }
        types = {name: round(score, 4) for name, score in self.by_type.items()}
        overall = {key: round(asdict(self)[key], 4) for key in ("overall", "given_the_text")}
        return {"by_kind": rounded, "by_type": types, **overall}


@dataclass
class BaselineTally:
    """Counts answers per kind and per wording of a stream of questions."""

    _golds: dict[tuple[str, str], VideoQuestion] = field(default_factory=dict)
    _kinds: dict[str, Counter[str]] = field(default_factory=dict)
    _texts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    def add(self, kind: str, text: str, question: VideoQuestion, count: int = 1) -> None:
        """Count `count` such questions. `text` is the wording without a number in front."""
        gold = question.solution
        self._golds.setdefault((kind, gold), question)
        self._kinds.setdefault(kind, Counter())[gold] += count
        self._texts.setdefault((kind, text), Counter())[gold] += count

    def baseline(self) -> ConstantBaseline:
        """The baseline of everything that was counted."""
        by_kind = {kind: self._best(kind, golds) for kind, golds in self._kinds.items()}
        types: dict[str, Counter[str]] = {}
        for (kind, _), question in self._golds.items():
            types.setdefault(question.problem_type.value, Counter())[kind] = by_kind[kind].questions
        by_type = {
            name: sum(by_kind[kind].score * n for kind, n in kinds.items()) / kinds.total()
            for name, kinds in types.items()
        }
        total = sum(guess.questions for guess in by_kind.values()) or 1
        texts = [self._best(kind, golds) for (kind, _), golds in self._texts.items()]
        return ConstantBaseline(
            by_kind=by_kind,
            by_type=by_type,
            overall=sum(guess.score * guess.questions for guess in by_kind.values()) / total,
            given_the_text=sum(guess.score * guess.questions for guess in texts) / total,
        )

    def _best(self, kind: str, golds: Counter[str]) -> Guess:
        questions = [(self._golds[kind, gold], n) for gold, n in golds.items()]
        total, best = golds.total(), Guess(golds.total(), "", -1.0, 0.0)
        for candidate in _candidates(questions[0][0].problem_type, sorted(golds)):
            scores = [(score_answer(question, candidate), n) for question, n in questions]
            mean = sum(score * n for score, n in scores) / total
            if mean > best.score + 1e-12:
                passing = sum(n for score, n in scores if score >= PASS_SCORE) / total
                best = Guess(total, candidate, mean, passing)
        return best


def _candidates(problem_type: ProblemType, golds: list[str]) -> list[str]:
    """The constant answers to try: every gold answer, or every interval between their ends.

    A number between two gold answers is never better: the mean relative error is smallest at one of
    them.
    """
    if problem_type is ProblemType.TEMPORAL_GROUNDING:
        ends = sorted({int(end) for gold in golds for end in gold.split(" to ")})
        return [f"{a} to {b}" for a in ends for b in ends if a < b]
    return golds
