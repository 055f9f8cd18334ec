"""The verdicts that an audit can draw from: those in the ledgers of a build or of an RL run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.ledger_file import reading
from schemas.ledger_samples import QUESTION_COLUMNS, stored_question
from schemas.questions import VideoQuestion

_VERDICTS = """
SELECT question_id, draw, last_verdicts.verdict, coalesce(said.unscored_reason, ''), said.judge,
       coalesce(said.prompt_id, ''), questions.problem_type, questions.data_source,
       json_extract_string(questions.media, '$[0].path')
FROM last_verdicts
JOIN sufficiency_verdicts AS said USING (question_id, draw, judge_draw)
JOIN attempts USING (question_id, draw)
JOIN questions USING (question_id)
WHERE last_verdicts.verdict <> '' AND attempts.observation IS NOT NULL
ORDER BY question_id, draw
"""
_NOT_JUDGED = "SELECT count(*) FROM last_verdicts WHERE verdict = ''"
_ATTEMPTS = f"""
SELECT {QUESTION_COLUMNS}, draw, observation, frame_spec
FROM (SELECT unnest(?) AS question_id, unnest(?) AS draw)
JOIN attempts USING (question_id, draw) JOIN questions USING (question_id)
"""


@dataclass(frozen=True)
class JudgedRow:
    """One verdict of a ledger (`place` counts the ledgers given), without the long texts."""

    place: int
    question_id: str
    draw: int
    verdict: str
    unscored_reason: str
    judge: str
    prompt_id: str
    problem_type: str
    data_source: str
    video: str

    @property
    def key(self) -> tuple[int, str, int]:
        """What names the row."""
        return self.place, self.question_id, self.draw

    @property
    def stratum(self) -> str:
        """The cell of the population that the row belongs to."""
        return f"{self.verdict} | {self.problem_type} | {self.data_source}"


@dataclass(frozen=True)
class Population:
    """All verdicts of the ledgers. `num_not_judged` attempts were out before a judge was asked."""

    rows: tuple[JudgedRow, ...]
    num_not_judged: int

    def counts(self) -> Counter[str]:
        """Rows per stratum."""
        return Counter(row.stratum for row in self.rows)


@dataclass(frozen=True)
class JudgedText:
    """What was judged: question and observation, and the frames that the observation is of."""

    question: VideoQuestion
    observation: str
    frame_spec: str


def read_population(ledgers: Sequence[Path]) -> Population:
    """The last verdict on each attempt, in an order that depends on content alone.

    Raises LedgerError.
    """
    rows: list[JudgedRow] = []
    num_not_judged = 0
    for place, path in enumerate(ledgers):
        with reading(path) as connection:
            rows += [JudgedRow(place, *row) for row in connection.execute(_VERDICTS).fetchall()]
            num_not_judged += connection.execute(_NOT_JUDGED).fetchall()[0][0]
    return Population(tuple(rows), num_not_judged)


def read_texts(
    ledgers: Sequence[Path], rows: Sequence[JudgedRow]
) -> dict[tuple[int, str, int], JudgedText]:
    """The texts of `rows`, by their keys."""
    texts: dict[tuple[int, str, int], JudgedText] = {}
    for place, path in enumerate(ledgers):
        wanted = [row for row in rows if row.place == place]
        ids, draws = [row.question_id for row in wanted], [row.draw for row in wanted]
        with reading(path) as connection:
            for found in connection.execute(_ATTEMPTS, [ids, draws]).fetchall():
                *question, draw, observation, frame_spec = found
                texts[place, question[0], draw] = JudgedText(
                    stored_question(tuple(question)), observation, frame_spec
                )
    return texts
