"""The rows of a build, kept and rejected, with all that the ledger holds of each, page by page.

    with reading(ledger) as connection:
        build = BrowsedBuild(connection, limit=None)
        for start in range(0, build.num_rows, 200):
            rows = build.rows(start, 200)

Only where each question ended is computed for all of them at once, by DuckDB and beside the ledger,
which is opened to read; texts are held for one page at a time.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.ledger.accepted_samples import QUESTION_COLUMNS, stored_question
from schemas.questions import VideoQuestion

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

KEPT, OPEN = "kept", "open"
"""Where a question stands that no step rejected."""
_OUTCOMES = """
CREATE TEMP TABLE browsed AS
SELECT row_number() OVER (ORDER BY questions."row", questions.question_id) - 1 AS place,
       questions.question_id, accepted.draw,
       CASE WHEN accepted.draw IS NOT NULL THEN '{kept}'
            ELSE coalesce(rejections.step, '{open}') END AS step,
       coalesce(rejections.reason, '') AS reason
FROM (SELECT question_id, "row" FROM questions ORDER BY "row", question_id {limit}) AS questions
LEFT JOIN accepted ON accepted.question_id = questions.question_id
LEFT JOIN rejections ON rejections.question_id = questions.question_id
"""
_PAGE = "question_id IN (SELECT question_id FROM browsed WHERE place BETWEEN ? AND ?)"
_ENDS = f"""
SELECT browsed.question_id, browsed.draw, browsed.step, browsed.reason,
       coalesce(rejections.detail, '')
FROM (SELECT * FROM browsed WHERE place BETWEEN ? AND ?) AS browsed
LEFT JOIN (SELECT question_id, detail FROM rejections WHERE {_PAGE}) AS rejections
ON rejections.question_id = browsed.question_id ORDER BY browsed.place
"""
_ATTEMPTS = "draw, call_key, output, generator"
_CHECKS = "draw, metric, score, passed, coalesce(extracted, '')"
_VERDICTS = (
    "draw, coalesce(call_key, ''), coalesce(verdict, ''), coalesce(unscored_reason, ''), "
    "answer_leak, coalesce(leak_text, ''), judge, coalesce(reply, '')"
)
_READS = "draw, evidence, reader, samples, correct, unscored, rate, blind_rate, verdict"
_CALLS = (
    "call_key, step, provider || ':' || model, status, batch, "
    "input_tokens + cache_read_tokens + cache_write_tokens, output_tokens, cost_usd, seconds, "
    "coalesce(error, '')"
)


@dataclass(frozen=True)
class Check:
    """The rule's check of an answer."""

    draw: int
    metric: str
    score: float
    passed: bool
    extracted: str


@dataclass(frozen=True)
class SaidVerdict:
    """One reply of a judge; `verdict` is empty where a leak was flagged before any was asked."""

    draw: int
    call_key: str
    verdict: str
    unscored_reason: str
    answer_leak: bool
    leak_text: str
    judge: str
    reply: str


@dataclass(frozen=True)
class Read:
    """What a text reader's answers came to, from the question alone or from an observation."""

    draw: int
    evidence: str
    reader: str
    samples: int
    correct: int
    unscored: int
    rate: float
    blind_rate: float | None
    verdict: str


@dataclass(frozen=True)
class Call:
    """A paid or final call. Input tokens are all that were read, from a cache too."""

    call_key: str
    step: str
    model: str
    status: str
    batch: bool
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    seconds: float | None
    error: str


@dataclass(frozen=True)
class Attempt:
    """A trace of the teacher with what was decided about it."""

    draw: int
    call_key: str
    output: str
    generator: str
    check: Check | None
    verdicts: tuple[SaidVerdict, ...]
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class BrowsedRow:
    """A row of the question file and what became of it; `question` is None where none was read.

    `step` is the one that rejected it, `KEPT`, or `OPEN` where the build has not finished with it.
    """

    question_id: str
    row: int
    problem_id: str
    data_source: str
    problem_type: str
    question: VideoQuestion | None
    kept_draw: int | None
    step: str
    reason: str
    detail: str
    attempts: tuple[Attempt, ...]
    blind: Read | None
    calls: tuple[Call, ...]


class BrowsedBuild:
    """The rows of an open ledger in the order of the question file, at most `limit` of them."""

    def __init__(self, connection: "DuckDBPyConnection", limit: int | None = None) -> None:
        self._connection = connection
        cut = "" if limit is None else f"LIMIT {int(limit)}"
        connection.execute(_OUTCOMES.format(kept=KEPT, open=OPEN, limit=cut))
        self.num_rows = self._count("SELECT count(*) FROM browsed")
        self.num_asked = self._count("SELECT count(*) FROM questions")
        # Ledgers of before text readers have no such table, and are not written to.
        self._has_reads = bool(
            self._count("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'reader_checks'")
        )

    def ends(self) -> list[tuple[str, str, int]]:
        """Step, reason and number of rows of each end, kept ones first, then the most."""
        return self._connection.execute(
            "SELECT step, reason, count(*) AS found FROM browsed GROUP BY step, reason"
            f" ORDER BY (step = '{KEPT}') DESC, found DESC, step, reason"
        ).fetchall()

    def rows(self, start: int, count: int) -> list[BrowsedRow]:
        """The rows from place `start` on."""
        span = (start, start + count - 1)
        questions = {row[0]: row for row in self._rows("questions", QUESTION_COLUMNS, span)}
        attempts = self._by_question("attempts", _ATTEMPTS, span, 'ORDER BY "draw"')
        checks = self._by_question("answer_checks", _CHECKS, span)
        verdicts = self._by_question(
            "sufficiency_verdicts", _VERDICTS, span, "ORDER BY draw, judge_draw"
        )
        calls = self._by_question("calls", _CALLS, span, "ORDER BY finished_at, call_key, attempt")
        reads = self._by_question("reader_checks", _READS, span) if self._has_reads else {}
        found = []
        for question_id, *end in self._connection.execute(_ENDS, [*span, *span]).fetchall():
            found.append(
                _browsed(
                    questions[question_id],
                    end,
                    attempts=attempts.get(question_id, []),
                    checks=checks.get(question_id, []),
                    verdicts=verdicts.get(question_id, []),
                    reads=reads.get(question_id, []),
                    calls=calls.get(question_id, []),
                )
            )
        return found

    def _count(self, sql: str) -> int:
        ((count,),) = self._connection.execute(sql).fetchall()
        return int(count)

    def _rows(
        self, table: str, columns: str, span: tuple[int, int], order: str = ""
    ) -> list[tuple[Any, ...]]:
        sql = f"SELECT {columns} FROM {table} WHERE {_PAGE} {order}"
        return self._connection.execute(sql, list(span)).fetchall()

    def _by_question(
        self, table: str, columns: str, span: tuple[int, int], order: str = ""
    ) -> Mapping[str, list[tuple[Any, ...]]]:
        found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for question_id, *values in self._rows(table, f"question_id, {columns}", span, order):
            found[question_id].append(tuple(values))
        return found


def _browsed(
    stored: tuple[Any, ...],
    end: list[Any],
    *,
    attempts: list[tuple[Any, ...]],
    checks: list[tuple[Any, ...]],
    verdicts: list[tuple[Any, ...]],
    reads: list[tuple[Any, ...]],
    calls: list[tuple[Any, ...]],
) -> BrowsedRow:
    question_id, row, problem_id, data_source, problem_type, problem, *_ = stored
    kept_draw, step, reason, detail = end
    said = [SaidVerdict(*values) for values in verdicts]
    read = [Read(*values) for values in reads]
    found = {check.draw: check for check in (Check(*values) for values in checks)}
    return BrowsedRow(
        question_id=question_id,
        row=row,
        problem_id=problem_id,
        data_source=data_source,
        problem_type=problem_type,
        question=None if problem is None else stored_question(stored),
        kept_draw=kept_draw,
        step=step,
        reason=reason,
        detail=detail,
        attempts=tuple(
            Attempt(
                draw=draw,
                call_key=call_key,
                output=output,
                generator=generator,
                check=found.get(draw),
                verdicts=tuple(one for one in said if one.draw == draw),
                reads=tuple(
                    one for one in read if (one.draw, one.evidence) == (draw, "observation")
                ),
            )
            for draw, call_key, output, generator in attempts
        ),
        blind=next((one for one in read if one.evidence == "none"), None),
        calls=tuple(Call(*values) for values in calls),
    )
