"""Builds with a text reader in the sandbox, where it is known which questions need their video."""

import asyncio
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from helpers.builds import dataset_rows, query
from helpers.cards import tables

from cli.config import EXIT_OK, UsageError
from judges.backends.registry import BackendOptions, open_backend
from pipeline.build import build
from pipeline.options import BuildConfig
from pipeline.preview import print_estimate
from pipeline.status import main as status
from sandbox.clips import main as render
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion

pytestmark = pytest.mark.heavy

READER = "oracle:9,blind=0.4"
NUM_QUESTIONS = 120


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blind") / "world"
    render([
        "--output-dir", str(folder), "--clips", "6", "--stills", "12",
        "--num-questions", str(NUM_QUESTIONS), "--seed", "5",
    ])  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def known(world: Path) -> frozenset[str]:
    """The questions that the reader answers without the video, by the oracle's own list."""
    backend: Any = asyncio.run(open_backend(READER, BackendOptions(media_root=world)))
    found: frozenset[str] = backend.blind_questions()
    return found


def config(world: Path, out: Path, **options: Any) -> BuildConfig:
    given = {
        "questions": world / "questions.json",
        "media_root": world,
        "output_dir": out,
        "generator": "oracle:7,wrong=0.1,insufficient=0.2",
        "judge": "oracle:8",
        "blind_filter": READER,
        "frames": "uniform:2",
        "frame_cache": world.parent / "frames",
    }
    return BuildConfig(**given | options)


@pytest.fixture(scope="module")
def marked(world: Path) -> Path:
    """A build that marks."""
    out = world.parent / "marked"
    assert asyncio.run(build(config(world, out, export=("questions",)), [])) == EXIT_OK
    return out


def marks(out: Path) -> dict[str, bool | None]:
    return dict(query(out, "select question_id, answerable_blind from blind_marks"))  # type: ignore[arg-type]


def test_marks_are_those_of_the_oracles_list_but_for_lucky_guesses(
    marked: Path, known: frozenset[str]
) -> None:
    """All that is known is found (recall 1). Guesses that are correct four times are few: of 4
    options 1 in 256, of 2 options or values 1 in 16; 72 questions are guessed.
    """
    assert len(known) == pytest.approx(0.4 * NUM_QUESTIONS, abs=2)
    found = {question_id for question_id, mark in marks(marked).items() if mark}
    assert len(marks(marked)) == NUM_QUESTIONS
    assert known <= found
    precision = len(known & found) / len(found)
    assert precision >= 0.85
    print(f"precision {precision:.3f}, recall 1.000 of {len(known)} known questions")


def test_the_dataset_carries_mark_and_rate(marked: Path, known: frozenset[str]) -> None:
    rows = dataset_rows(marked)
    expected = marks(marked)
    assert {row["question_id"]: row["answerable_blind"] for row in rows} == {
        row["question_id"]: expected[row["question_id"]] for row in rows
    }
    assert all(row["blind_rate"] == 1.0 for row in rows if row["question_id"] in known)
    assert {True, False} == {row["answerable_blind"] for row in rows}


def test_exported_questions_carry_the_mark_and_keep_their_ids(marked: Path, world: Path) -> None:
    """Those that gave no trace too: RL asks them."""
    exported = list(read_questions(marked / "questions" / "questions.jsonl"))
    original = list(read_questions(world / "questions.json"))
    assert [row.question_id for row in exported] == [row.question_id for row in original]
    assert {
        row.question_id: row.answerable_blind for row in exported if isinstance(row, VideoQuestion)
    } == marks(marked)


def test_card_and_status_say_what_the_reader_found(
    marked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sum(mark is True for mark in marks(marked).values())
    assert status([str(marked)]) == EXIT_OK
    printed = capsys.readouterr().out
    assert f"without the video {found} of {NUM_QUESTIONS} questions are answered" in printed
    card = (marked / "README.md").read_text()
    kept = dataset_rows(marked)
    of_these = sum(row["answerable_blind"] for row in kept)
    (rows,) = [rows for head, rows in tables(card).items() if head.startswith("text reader/")]
    (cells,) = rows
    assert cells[2:6] == ["4", f"{NUM_QUESTIONS}", f"{found}", "0"]
    assert cells[7:] == [f"{len(kept)}", f"{of_these}"]
    assert json.loads((marked / "progress.json").read_text())["blind"]["answerable"] == found


def test_rejecting_leaves_out_the_marked_questions_and_asks_no_teacher_about_them(
    marked: Path, world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert asyncio.run(build(config(world, out, blind_action="reject"), [])) == EXIT_OK
    rejected = {name for (name,) in query(out, _BLIND_REJECTED)}
    assert rejected == {name for name, mark in marks(marked).items() if mark}
    asked = {name for (name,) in query(out, "select question_id from attempts")}
    assert asked.isdisjoint(rejected)
    expected = [row for row in dataset_rows(marked) if row["question_id"] not in rejected]
    assert dataset_rows(out) == expected


_BLIND_REJECTED = """
select question_id from rejections where step = 'blind' and reason = 'answerable_blind'
"""


def test_a_build_without_a_reader_is_what_it_was(world: Path, tmp_path: Path) -> None:
    """Rows, settings on the card and dataset id know nothing of readers that were not asked."""
    out = tmp_path / "out"
    assert asyncio.run(build(config(world, out, blind_filter=None), [])) == EXIT_OK
    card = (out / "README.md").read_text()
    assert "blind" not in card.partition("Settings that decide")[2]
    assert "sufficiency" not in card.partition("Settings that decide")[2]
    assert "text reader answered" not in card
    assert "answerable blind" not in card.partition("## Columns")[0]
    assert {row["answerable_blind"] for row in dataset_rows(out)} == {None}


async def test_a_quote_is_within_fifteen_per_cent_of_the_ledger(
    world: Path, tmp_path: Path
) -> None:
    """After a pilot of 30 questions, tokens of the others as they then came: of all steps together,
    and for each row that a step is asked about. How many rows reach the filter, 30 questions tell
    to a quarter only.
    """
    out = tmp_path / "out"
    options: dict[str, Any] = {"sufficiency": "both", "blind_action": "reject"}
    assert await build(config(world, out, limit=30, **options), []) == EXIT_OK
    before = spent_on(out)
    assert await print_estimate(config(world, out, dry_run=True, **options)) == EXIT_OK
    quoted = {
        step["step"]: (step["input_tokens"] + step["output_tokens"], step["calls"])
        for step in json.loads((out / "estimate.json").read_text())["steps"]
    }
    assert await build(config(world, out, **options), []) == EXIT_OK
    spent = {
        step: (tokens - before[step][0], calls - before[step][1])
        for step, (tokens, calls) in spent_on(out).items()
    }
    assert quoted.keys() == spent.keys() == {"blind", "generate", "filter", "filter-answer"}
    for step, (tokens, calls) in spent.items():
        quote, quoted_calls = quoted[step]
        assert quote / quoted_calls == pytest.approx(tokens / calls, rel=0.15), step
        assert quote == pytest.approx(tokens, rel=0.3), step
    assert quoted["blind"][0] == pytest.approx(spent["blind"][0], rel=0.15)
    every = [sum(tokens for tokens, _ in one.values()) for one in (quoted, spent)]
    assert every[0] == pytest.approx(every[1], rel=0.15)
    print({step: round(quoted[step][0] / spent[step][0], 3) for step in quoted})


def spent_on(out: Path) -> dict[str, tuple[int, int]]:
    """Tokens and calls of each step."""
    sql = (
        "select step, sum(input_tokens + output_tokens)::bigint, count(*) from calls group by step"
    )
    return {step: (tokens, calls) for step, tokens, calls in query(out, sql)}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"blind_filter": "oracle:9"}, "--blind-filter was "),
        ({"blind_samples": 8}, "--blind-samples was 4, is now 8"),
        ({"blind_action": "reject"}, '--blind-action was "mark", is now "reject"'),
    ],
)
async def test_what_the_reader_decides_may_not_change_on_resume(
    marked: Path, world: Path, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        await build(config(world, marked, **changed), [])
    assert sentence in str(caught.value)


async def test_a_ledger_of_before_text_readers_resumes(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options know none of them, its schema is the first: nothing is asked again."""
    out = tmp_path / "out"
    options: dict[str, Any] = {"blind_filter": None, "limit": 40}
    assert await build(config(world, out, **options), []) == EXIT_OK
    rows, calls = dataset_rows(out), query(out, "select count(*) from calls")
    card_id = dataset_id(out)
    saved = json.loads((out / "config.json").read_text())
    new = ("blind_filter", "blind_samples", "blind_correct", "blind_action", "sufficiency")
    old = {name: value for name, value in saved.items() if name not in new}
    del old["sufficiency_margin"]
    (out / "config.json").write_text(json.dumps(old))
    with duckdb.connect(str(out / "cot.duckdb")) as ledger:
        ledger.execute("DROP VIEW blind_marks; DROP TABLE reader_checks; DROP TABLE reader_answers")
        ledger.execute("DELETE FROM schema_migrations WHERE number = 2")
    assert await build(config(world, out, **options), []) == EXIT_OK
    assert dataset_rows(out) == rows
    assert dataset_id(out) == card_id
    assert query(out, "select count(*) from calls") == calls
    assert query(out, "select max(number) from schema_migrations") == [(2,)]


def dataset_id(out: Path) -> str:
    card = (out / "README.md").read_text()
    return card.partition("| dataset id | `")[2].partition("`")[0]
