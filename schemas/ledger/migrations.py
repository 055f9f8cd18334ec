"""The ledger's schema as numbered, append-only migrations.

A migration that was released is never edited: what comes later is a new one at the end. Each runs
in one transaction together with its record in `schema_migrations`. Timestamps are UTC, no zone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from schemas.ledger.file import LedgerVersionError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Migration:
    """One step of the schema. `number` is its place in the list, from 1."""

    number: int
    name: str
    sql: str


_TABLES_OF_QUESTIONS = """
CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY,
    command VARCHAR NOT NULL,
    started_at TIMESTAMP NOT NULL,
    ended_at TIMESTAMP,
    exit_status INTEGER,
    "commit" VARCHAR,
    dirty BOOLEAN,
    python VARCHAR,
    platform VARCHAR,
    versions JSON NOT NULL,
    config JSON NOT NULL
);
-- A row that no reader understood stands here too: its content columns are NULL.
CREATE TABLE questions (
    question_id VARCHAR PRIMARY KEY,
    "row" BIGINT NOT NULL,
    problem_id VARCHAR NOT NULL DEFAULT '',
    data_source VARCHAR NOT NULL DEFAULT '',
    problem_type VARCHAR NOT NULL DEFAULT '',
    data_type VARCHAR,
    problem VARCHAR,
    options JSON,
    solution VARCHAR,
    media JSON,
    time_clues JSON,
    level VARCHAR
);
CREATE TABLE media (
    path VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    media_id VARCHAR NOT NULL,
    frame_spec_id VARCHAR NOT NULL,
    reader VARCHAR,
    source_width INTEGER,
    source_height INTEGER,
    width INTEGER,
    height INTEGER,
    num_source_frames BIGINT,
    duration_seconds DOUBLE,
    frame_indices INTEGER[],
    frame_times DOUBLE[],
    PRIMARY KEY (path, frame_spec_id)
);
CREATE TABLE rejections (
    question_id VARCHAR PRIMARY KEY,
    step VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    detail VARCHAR NOT NULL DEFAULT '',
    run_id VARCHAR NOT NULL
);
"""

_TABLES_OF_TRACES = """
CREATE TABLE attempts (
    question_id VARCHAR NOT NULL,
    draw INTEGER NOT NULL,
    call_key VARCHAR NOT NULL,
    output VARCHAR NOT NULL,
    observation VARCHAR,
    think VARCHAR,
    answer VARCHAR,
    generator VARCHAR NOT NULL DEFAULT '',
    prompt_id VARCHAR NOT NULL DEFAULT '',
    media_id VARCHAR NOT NULL DEFAULT '',
    frame_spec VARCHAR NOT NULL DEFAULT '',
    frame_indices INTEGER[],
    frame_times DOUBLE[],
    PRIMARY KEY (question_id, draw)
);
CREATE TABLE answer_checks (
    question_id VARCHAR NOT NULL,
    draw INTEGER NOT NULL,
    metric VARCHAR NOT NULL,
    score DOUBLE NOT NULL,
    passed BOOLEAN NOT NULL,
    extracted VARCHAR,
    PRIMARY KEY (question_id, draw)
);
-- verdict is NULL where a leak was flagged before any judge was asked.
CREATE TABLE sufficiency_verdicts (
    question_id VARCHAR NOT NULL,
    draw INTEGER NOT NULL,
    judge_draw INTEGER NOT NULL DEFAULT 0,
    call_key VARCHAR,
    verdict VARCHAR,
    unscored_reason VARCHAR,
    answer_leak BOOLEAN NOT NULL DEFAULT false,
    leak_allowed BOOLEAN NOT NULL DEFAULT false,
    leak_text VARCHAR,
    judge VARCHAR NOT NULL DEFAULT '',
    prompt_id VARCHAR,
    reply VARCHAR,
    PRIMARY KEY (question_id, draw, judge_draw)
);
"""

_TABLES_OF_CALLS = """
-- One row per billed or final attempt. A superseded failure is still counted as spent, but it no
-- longer answers for its call.
CREATE TABLE calls (
    call_key VARCHAR NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    status VARCHAR NOT NULL,
    is_final BOOLEAN NOT NULL,
    is_superseded BOOLEAN NOT NULL DEFAULT false,
    provider VARCHAR NOT NULL DEFAULT '',
    model VARCHAR NOT NULL DEFAULT '',
    endpoint VARCHAR NOT NULL DEFAULT '',
    step VARCHAR NOT NULL DEFAULT '',
    question_id VARCHAR NOT NULL DEFAULT '',
    reply VARCHAR,
    stop_reason VARCHAR,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    cache_read_tokens BIGINT NOT NULL DEFAULT 0,
    cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    cost_usd DOUBLE,
    batch BOOLEAN NOT NULL DEFAULT false,
    seconds DOUBLE,
    request_id VARCHAR,
    error VARCHAR,
    finished_at TIMESTAMP,
    run_id VARCHAR NOT NULL
);
CREATE INDEX calls_by_key ON calls (call_key);
CREATE TABLE batches (
    intent_id VARCHAR PRIMARY KEY,
    provider VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    endpoint VARCHAR NOT NULL DEFAULT '',
    batch_id VARCHAR,
    created_at TIMESTAMP NOT NULL,
    status VARCHAR NOT NULL,
    worst_case_usd DOUBLE
);
CREATE TABLE batch_requests (
    intent_id VARCHAR NOT NULL,
    custom_id VARCHAR NOT NULL,
    done BOOLEAN NOT NULL DEFAULT false,
    PRIMARY KEY (intent_id, custom_id)
);
"""

_VIEWS = """
-- The last word of the judge on each attempt.
CREATE VIEW last_verdicts AS
SELECT question_id, draw, max(judge_draw) AS judge_draw,
       arg_max(coalesce(verdict, ''), judge_draw) AS verdict,
       arg_max(answer_leak AND NOT leak_allowed, judge_draw) AS leaks
FROM sufficiency_verdicts GROUP BY question_id, draw;

CREATE VIEW passing_attempts AS
SELECT attempts.question_id, attempts.draw
FROM attempts
JOIN answer_checks USING (question_id, draw)
JOIN last_verdicts USING (question_id, draw)
WHERE answer_checks.passed AND last_verdicts.verdict = 'yes' AND NOT last_verdicts.leaks;

CREATE VIEW accepted AS
SELECT question_id, min(draw) AS draw
FROM passing_attempts
WHERE NOT EXISTS (
    SELECT 1 FROM rejections WHERE rejections.question_id = passing_attempts.question_id
)
GROUP BY question_id;

CREATE VIEW funnel AS
SELECT outcomes.step, outcomes.reason, coalesce(questions.data_source, '') AS data_source,
       coalesce(questions.problem_type, '') AS problem_type, count(*) AS count
FROM (
    SELECT question_id, step, reason FROM rejections
    UNION ALL
    SELECT question_id, 'accepted' AS step, '' AS reason FROM accepted
) AS outcomes
LEFT JOIN questions USING (question_id)
GROUP BY ALL;

-- cost_usd sums the calls whose price was known, and is NULL where none was.
CREATE VIEW spend AS
SELECT step, provider, model, batch, count(*) AS calls,
       sum(input_tokens)::BIGINT AS input_tokens, sum(output_tokens)::BIGINT AS output_tokens,
       sum(cache_read_tokens)::BIGINT AS cache_read_tokens,
       sum(cache_write_tokens)::BIGINT AS cache_write_tokens,
       sum(cost_usd) AS cost_usd, count(*) FILTER (cost_usd IS NULL) AS unpriced_calls
FROM calls GROUP BY step, provider, model, batch;
"""

_TABLES_OF_READERS = """
-- What a text reader answered. Evidence 'none': from the question alone (draw 0); 'observation':
-- from the observation of attempt `draw`. `correct` is NULL where the reply could not be used.
CREATE TABLE reader_answers (
    question_id VARCHAR NOT NULL,
    evidence VARCHAR NOT NULL,
    draw INTEGER NOT NULL DEFAULT 0,
    sample INTEGER NOT NULL,
    permutation INTEGER NOT NULL DEFAULT 0,
    call_key VARCHAR NOT NULL,
    answer VARCHAR,
    score DOUBLE,
    correct BOOLEAN,
    unscored_reason VARCHAR,
    PRIMARY KEY (question_id, evidence, draw, sample)
);
-- What followed from them. 'yes' is answerable blind for evidence 'none', and sufficient for an
-- observation, whose rate was held against `blind_rate` + `margin`.
CREATE TABLE reader_checks (
    question_id VARCHAR NOT NULL,
    evidence VARCHAR NOT NULL,
    draw INTEGER NOT NULL DEFAULT 0,
    reader VARCHAR NOT NULL,
    prompt_id VARCHAR NOT NULL,
    samples INTEGER NOT NULL,
    correct INTEGER NOT NULL,
    unscored INTEGER NOT NULL,
    rate DOUBLE NOT NULL,
    blind_rate DOUBLE,
    margin DOUBLE,
    verdict VARCHAR NOT NULL,
    PRIMARY KEY (question_id, evidence, draw)
);
CREATE VIEW blind_marks AS
SELECT question_id, rate AS blind_rate, samples, correct, unscored,
       CASE verdict WHEN 'yes' THEN true WHEN 'no' THEN false END AS answerable_blind
FROM reader_checks WHERE evidence = 'none';
"""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "first_schema",
        _TABLES_OF_QUESTIONS + _TABLES_OF_TRACES + _TABLES_OF_CALLS + _VIEWS,
    ),
    Migration(2, "text_readers", _TABLES_OF_READERS),
)


def migrate(
    connection: "DuckDBPyConnection", migrations: Sequence[Migration] = MIGRATIONS
) -> list[int]:
    """Bring the file to the last migration; returns the numbers that were applied now."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (number INTEGER PRIMARY KEY, name VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)"
    )
    rows = connection.execute("SELECT number, name FROM schema_migrations ORDER BY number")
    recorded: list[tuple[int, str]] = rows.fetchall()
    _refuse_foreign_history(recorded, migrations)
    todo = migrations[len(recorded) :]
    for migration in todo:
        connection.begin()
        try:
            connection.execute(migration.sql)
            connection.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?)",
                [migration.number, migration.name, datetime.now(UTC).replace(tzinfo=None)],
            )
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
    return [migration.number for migration in todo]


def _refuse_foreign_history(
    recorded: Sequence[tuple[int, str]], migrations: Sequence[Migration]
) -> None:
    known = [(migration.number, migration.name) for migration in migrations]
    if len(recorded) > len(known) and list(recorded[: len(known)]) == known:
        raise LedgerVersionError(
            f"its schema is version {recorded[-1][0]}, newer than this program's {len(known)}: "
            "upgrade the program"
        )
    if list(recorded) != known[: len(recorded)]:
        raise LedgerVersionError(
            f"its schema was made by other migrations ({list(recorded)!r}; expected "
            f"{known[: len(recorded)]!r}): open it with the program that made it"
        )
