"""What an audit draws from: verdicts in ledgers of a build or RL run, or a file of answers.

A row of such a file is `{"question": {...}, "model_output": "..."}`, or one of the table that an
evaluation writes. A row that cannot be read is left out and counted. Its judge is the rule-based
extractor of `judges.consistency`, its verdict whether the answer follows from the reasoning.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judges.consistency import RULES_ID, extract_conclusion, reasoning_of
from judges.consistency_llm import ExtractedLetter, consistency
from judges.scoring.choices import chosen_letter, extract_choice
from schemas.annotations.fields import strings
from schemas.annotations.files import guess_layout
from schemas.annotations.records import BadRecord, read_records
from schemas.answer_options import letter_options
from schemas.ledger.accepted_samples import QUESTION_COLUMNS, stored_question
from schemas.ledger.file import reading
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.samples import Sufficiency, UnscoredReason
from schemas.serialization import one_line, with_whole_characters

RULE_JUDGE = "rule"
_PARQUET_MAGIC = b"PAR1"
_NEEDED = ("problem", "options", "problem_id", "paths", "output")
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


@dataclass(frozen=True)
class Answers:
    """The population of a file with its texts, and how many rows were left out, by reason."""

    population: Population
    texts: dict[tuple[int, str, int], JudgedText]
    left_out: Counter[str]


def rule_verdict(question: VideoQuestion, reasoning: str) -> tuple[Sufficiency, str]:
    """Whether a reasoning concludes `question.solution`, by the rules, and what they found."""
    found = extract_conclusion(reasoning, question.options)
    why = None if found.letter else UnscoredReason.NO_CONCLUSION
    where = f": {reasoning[slice(*found.span)]}" if found.span else ""
    reply = f"{found.letter or 'no letter'} ({found.rule}){where}"
    return consistency(ExtractedLetter(found.letter, why), question), reply


def read_answers(path: Path) -> Answers:
    """All multiple-choice answers of a file that name an option. Raises ValueError, OSError."""
    rows: list[JudgedRow] = []
    texts: dict[tuple[int, str, int], JudgedText] = {}
    left_out: Counter[str] = Counter()
    draws: Counter[str] = Counter()
    for number, value in _records(path, left_out):
        found = _answered(value, number)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        question, reasoning, video = found
        question = question.model_copy(update={"data_source": path.stem})
        verdict, _ = rule_verdict(question, reasoning)
        draw = draws[question.question_id]
        draws[question.question_id] += 1
        row = JudgedRow(
            place=0,
            question_id=question.question_id,
            draw=draw,
            verdict=verdict.verdict,
            unscored_reason=verdict.unscored_reason.value if verdict.unscored_reason else "",
            judge=RULE_JUDGE,
            prompt_id=RULES_ID,
            problem_type=question.problem_type.value,
            data_source=path.stem,
            video=video,
        )
        rows.append(row)
        texts[row.key] = JudgedText(question, reasoning, "")
    return Answers(Population(tuple(rows), left_out.total()), texts, left_out)


def _records(path: Path, left_out: Counter[str]) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        if file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC:
            yield from enumerate(_rows_of_table(path))
            return
    for number, record in enumerate(read_records(path, guess_layout(path))):
        if isinstance(record, BadRecord):
            left_out["the row cannot be read"] += 1
        else:
            yield number, with_whole_characters(record.value)


def _rows_of_table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a predictions.parquet, as those of a file of answers are."""
    for row in table_rows(path, _NEEDED, "expected the predictions.parquet of an evaluation"):
        asked = {name: row.get(name) for name in ("problem", "options", "problem_id")}
        video = (row.get("paths") or [""])[0]
        yield {"question": asked | {"video": video}, "model_output": row["output"]}


def table_rows(path: Path, names: Sequence[str], expected: str) -> list[dict[str, Any]]:
    """These columns of a Parquet file, row by row. Raises OSError, and ValueError where the file or
    a column cannot be read; `expected` says what to give.
    """
    import pyarrow as pa  # only who has such a table pays for it
    import pyarrow.parquet as pq

    try:
        with path.open("rb"), pq.ParquetFile(path) as file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"it has no column {', '.join(missing)}; {expected}")
            rows: list[dict[str, Any]] = file.read(list(names)).to_pylist()
            return rows
    except pa.ArrowInvalid as error:
        problem = one_line(str(error))
        raise ValueError(f"it cannot be read as Parquet ({problem}); {expected}") from None


def _answered(value: Any, number: int) -> tuple[VideoQuestion, str, str] | str:
    """Question (its solution is the answer that was given), reasoning and video; or why not."""
    asked = value.get("question") if isinstance(value, dict) else None
    output = value.get("model_output") if isinstance(value, dict) else None
    if not isinstance(asked, dict) or not isinstance(output, str):
        return "no question object or no model_output"
    problem = str(asked.get("problem") or asked.get("question") or "")
    if not problem or not asked.get("options"):
        return "not multiple choice"
    try:
        lettered = letter_options(strings(asked, "options"))
    except ValueError:
        return "its options cannot be read"
    if lettered.is_contradictory:
        return "its options bring letters that do not go by place"
    answer = extract_choice(output, lettered.written_lines)
    given = chosen_letter(answer, lettered.written_lines) if answer is not None else None
    if given is None:
        return "the answer names no option"
    reasoning = reasoning_of(output)
    if not reasoning:
        return "there is no reasoning"
    video = str(asked.get("video") or asked.get("path") or "").lstrip("/") or f"row {number}"
    question = VideoQuestion(
        problem=problem,
        options=lettered.written_lines,
        solution=given,
        media=(MediaRef(kind="video", path=video),),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        problem_id=str(asked.get("problem_id", number)),
        row=number,
    )
    return question, reasoning, video
