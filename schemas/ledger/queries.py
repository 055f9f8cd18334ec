"""Named queries: the funnel, spending, averages, and the integrity checks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from schemas.ledger.accepted_samples import QUESTION_COLUMNS, stored_question
from schemas.samples import Step

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXAMPLES = 5  # ids named per kind of violation


@dataclass(frozen=True)
class FunnelRow:
    """How many questions ended at a step for a reason; `step` "accepted" has the reason ""."""

    step: str
    reason: str
    data_source: str
    problem_type: str
    count: int


@dataclass(frozen=True)
class SpendRow:
    """What one step paid to one model. `cost_usd` leaves `unpriced_calls` out."""

    step: str
    provider: str
    model: str
    batch: bool
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float | None
    unpriced_calls: int


_AVERAGE_NAMES = (
    "questions",
    "generated",
    "verified",
    "judged",
    "trace_tokens",
    "observation_words",
    "judge_reply_tokens",
    "asked_blind",
    "rejected_blind",
    "read",
    "blind_reply_tokens",
    "read_reply_tokens",
)
_AVERAGES = """
SELECT (SELECT count(DISTINCT question_id) FROM attempts), (SELECT count(*) FROM attempts),
       (SELECT count(*) FROM answer_checks WHERE passed),
       (SELECT count(*) FROM last_verdicts WHERE verdict <> ''),
       coalesce((SELECT avg(output_tokens) FROM calls
                 WHERE step = 'generate' AND status = 'ok'), 0),
       coalesce((SELECT avg(len(string_split(trim(observation), ' ')))
                 FROM attempts WHERE observation IS NOT NULL), 0),
       coalesce((SELECT avg(output_tokens) FROM calls WHERE step = 'filter' AND status = 'ok'), 0),
       (SELECT count(*) FROM blind_marks),
       (SELECT count(*) FROM rejections WHERE step = 'blind'),
       (SELECT count(*) FROM reader_checks WHERE evidence = 'observation'),
       coalesce((SELECT avg(output_tokens) FROM calls WHERE step = 'blind' AND status = 'ok'), 0),
       coalesce((SELECT avg(output_tokens) FROM calls
                 WHERE step = 'filter-answer' AND status = 'ok'), 0)
"""


def funnel(cursor: "DuckDBPyConnection") -> list[FunnelRow]:
    """The funnel in the order of the steps; accepted questions come last."""
    cursor.execute("SELECT step, reason, data_source, problem_type, count FROM funnel")
    order = {step.value: place for place, step in enumerate(Step)}
    rows = [FunnelRow(*row) for row in cursor.fetchall()]
    rows.sort(
        key=lambda row: (
            order.get(row.step, len(order)),
            row.reason,
            row.data_source,
            row.problem_type,
        )
    )
    return rows


def spend(cursor: "DuckDBPyConnection") -> list[SpendRow]:
    """Calls, tokens and dollars by step and model."""
    cursor.execute(
        "SELECT step, provider, model, batch, calls, input_tokens, output_tokens,"
        " cache_read_tokens, cache_write_tokens, cost_usd, unpriced_calls FROM spend"
        " ORDER BY step DESC, provider, model, batch"
    )
    return [SpendRow(*row) for row in cursor.fetchall()]


def averages(cursor: "DuckDBPyConnection") -> dict[str, float]:
    """Counts and means over what is stored; a mean is 0 where there is nothing yet."""
    (row,) = cursor.execute(_AVERAGES).fetchall()
    return dict(zip(_AVERAGE_NAMES, row, strict=True))


_ORPHAN = "SELECT question_id || ' draw ' || draw FROM {} ANTI JOIN {} USING ({})"
_UNANSWERED = """
SELECT accepted.question_id FROM accepted JOIN {table} AS paid USING (question_id, draw) {last}
ANTI JOIN (SELECT call_key FROM calls WHERE status = 'ok') AS ok ON ok.call_key = paid.call_key
"""
_VIOLATIONS: Mapping[str, str] = {
    "is both accepted and rejected": """
        SELECT DISTINCT question_id FROM passing_attempts
        SEMI JOIN rejections USING (question_id)""",
    "has an attempt but no question": "SELECT question_id FROM attempts ANTI JOIN questions"
    " USING (question_id)",
    "has a rejection but no question": "SELECT question_id FROM rejections ANTI JOIN questions"
    " USING (question_id)",
    "has an answer check but no attempt": _ORPHAN.format(
        "answer_checks", "attempts", "question_id, draw"
    ),
    "has a sufficiency verdict but no attempt": _ORPHAN.format(
        "sufficiency_verdicts", "attempts", "question_id, draw"
    ),
    "has a text reader's check but no question": "SELECT question_id FROM reader_checks"
    " ANTI JOIN questions USING (question_id)",
    "has another number of a text reader's answers than its check says": """
        SELECT checks.question_id FROM reader_checks AS checks LEFT JOIN (
            SELECT question_id, evidence, draw, count(*) AS found,
                   count(*) FILTER (correct) AS found_correct
            FROM reader_answers GROUP BY ALL
        ) AS answers USING (question_id, evidence, draw)
        WHERE found IS DISTINCT FROM samples OR found_correct IS DISTINCT FROM checks.correct""",
    "was unreadable but has no rejection": """
        SELECT question_id FROM questions ANTI JOIN rejections USING (question_id)
        WHERE problem IS NULL""",
    "is accepted, but its output comes from no answered call": _UNANSWERED.format(
        table="attempts", last=""
    ),
    "is accepted, but its verdict comes from no answered call": _UNANSWERED.format(
        table="sufficiency_verdicts",
        last="JOIN last_verdicts USING (question_id, draw, judge_draw)",
    ),
    "has more than one final outcome": """
        SELECT call_key FROM calls WHERE is_final AND NOT is_superseded
        GROUP BY call_key HAVING count(*) > 1""",
    "has a request but no batch": """
        SELECT intent_id || ' ' || custom_id FROM batch_requests ANTI JOIN batches USING (intent_id)
        """,
}
_UNFINISHED = """
SELECT question_id FROM questions ANTI JOIN rejections USING (question_id)
ANTI JOIN accepted USING (question_id)
"""


def verify(cursor: "DuckDBPyConnection", *, is_finished: bool) -> list[str]:
    """One sentence per kind of violation with its count and first few; empty when all is well."""
    checks = dict(_VIOLATIONS)
    if is_finished:
        checks["is neither accepted nor rejected"] = _UNFINISHED
    found = {
        what: [str(subject) for (subject,) in cursor.execute(sql).fetchall()]
        for what, sql in checks.items()
    }
    found["does not derive from its stored content"] = list(_wrong_ids(cursor))
    return [_sentence(what, subjects) for what, subjects in found.items() if subjects]


def _wrong_ids(cursor: "DuckDBPyConnection") -> Iterator[str]:
    cursor.execute(f"SELECT {QUESTION_COLUMNS} FROM questions WHERE problem IS NOT NULL")
    while rows := cursor.fetchmany(1000):
        for row in rows:
            try:
                question_id = stored_question(row).question_id
            except ValidationError:
                question_id = ""
            if question_id != row[0]:
                yield row[0]


def _sentence(what: str, subjects: list[str]) -> str:
    named = ", ".join(sorted(subjects)[:_EXAMPLES])
    more = f" and {len(subjects) - _EXAMPLES} more" if len(subjects) > _EXAMPLES else ""
    return f"{len(subjects)} x {what}: {named}{more}"
