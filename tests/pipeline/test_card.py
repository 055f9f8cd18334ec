"""The data card of a real ledger: right numbers, and the same card each time."""

import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from helpers.built_ledger import add_attempt, built_ledger, empty_ledger, fill, question, run_info
from helpers.cards import card_of, tables

from pipeline.card import size_category
from pipeline.card_statistics import REASON_MEANINGS, collect_statistics
from pipeline.export import export_dataset
from schemas.dataset_rows import COLUMNS
from schemas.ledger.ledger import Ledger
from schemas.questions import MediaRef
from schemas.samples import Reason, Rejection, Step

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("built")
    with built_ledger(out) as ledger:
        return card_of(ledger, out)


def test_the_funnel_counts_questions_and_not_attempts(card: str) -> None:
    """31 rows; rows 7 and 17 have two attempts each, and 29 attempts stand in the ledger."""
    assert "| rows | 24 of 31 questions (77.4%) |" in card
    assert tables(card)["step/left"] == [
        ["rows read", "31"],
        ["readable question", "30"],
        ["frames decoded", "29"],
        ["trace generated", "28"],
        ["answer verified", "26"],
        ["observation sufficient", "24"],
    ]


def test_what_was_not_used_is_listed_with_step_reason_and_count(card: str) -> None:
    assert "**7 rows not used, because:**" in card
    rows = tables(card)["step/reason/meaning/questions/share"]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("read", "invalid_question", "1"),
        ("media", "missing_file", "1"),
        ("generate", "call_failed", "1"),
        ("verify", "low_score", "1"),
        ("verify", "malformed_trace", "1"),
        ("filter", "answer_leak", "1"),
        ("filter", "insufficient", "1"),
    ]
    assert "answer leak was flagged: 1." in card
    assert "Rows with equal options: 0.\n" in card


def test_rows_with_equal_options_are_counted_where_they_were_kept(
    tmp_path: Path,
) -> None:
    doubled = ("A. one", "B. two", "C. one", "D. one")
    with empty_ledger(tmp_path) as ledger:
        kept = [question(row, options=doubled, solution="B") for row in (0, 2)]
        lost = question(4, options=doubled, solution="B")
        ledger.add_questions([*kept, lost, question(6)])
        for asked in (*kept, question(6)):
            add_attempt(ledger, asked)
        add_attempt(ledger, lost, score=0.0)
        counted = card_of(ledger, tmp_path)
    assert "Rows with equal options: 2 (the first of them counts" in counted


def test_kept_of_asked_by_source_and_by_type(card: str) -> None:
    """Kitchen rows are 0, 3, ... 27, of which 9 and 15 are lost; odd rows are free-form."""
    assert tables(card)["source/asked/kept/share/licence"] == [
        ["street/train", "20", "16", "80.0%", "*to fill in*"],
        ["kitchen/train", "10", "8", "80.0%", "*to fill in*"],
        ["–", "1", "0", "0.0%", "*to fill in*"],
    ]
    assert tables(card)["problem type/asked/kept/share"] == [
        ["free-form", "15", "9", "60.0%"],
        ["multiple choice", "15", "15", "100.0%"],
        ["–", "1", "0", "0.0%"],
    ]


def test_teacher_judge_and_media_are_named_with_their_counts(card: str) -> None:
    found = tables(card)
    assert found["teacher/prompt/frame settings/traces/questions/kept"] == [
        ["claude:teacher", "prompt-teacher", "frames-1", "29", "27", "24"]
    ]
    assert found["judge/prompt/replies: sufficient/insufficient/unscored"] == [
        ["claude:judge", "prompt-judge", "24", "1", "0"]
    ]
    (media,) = [rows for header, rows in found.items() if header.startswith("media/read by")]
    assert media == [["video", "decord", "27", "8.0", "24.0", "37.0", "3"]]


def test_clips_of_files_are_one_row_of_the_teacher_however_many_they_are(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        for number in range(3):
            clip = MediaRef(kind="video", path="a.mp4", start=number, end=number + 1.5)
            asked = question(number, media=(clip,) if number else question(0).media)
            ledger.add_question(asked)
            add_attempt(ledger, asked, frame_spec=f"frames-{number}")
        export_dataset(ledger, tmp_path)
        text = card_of(ledger, tmp_path)
    (teachers,) = (rows for name, rows in tables(text).items() if name.startswith("teacher/"))
    assert [row[2:4] for row in teachers] == [["frames-0", "1"], ["one for each clip", "2"]]


def test_an_unknown_price_is_reported_as_unknown(card: str) -> None:
    assert tables(card)["step/model/calls/input tokens/output tokens/US dollars"] == [
        ["generate", "claude:teacher", "29", "29,000", "2,900", "0.2900"],
        ["filter", "claude:judge", "25", "5,000", "250", "price unknown"],
        ["all", "", "54", "34,000", "3,150", "0.2900 and 25 calls of unknown price"],
    ]


def test_lengths_are_words_of_the_accepted_rows(card: str) -> None:
    """Row n's observation has n + 1 words; accepted rows are 0 to 29 without 5, 7, 9, 11, 13, 15.

    Sum of n + 1: 465 - (6 + 8 + 10 + 12 + 14 + 16) = 399, over 24 rows 16.6. The median is the 12th
    of 24 in order (0-4, 6, 8, 10, 12, 14, 16, 17): 18 words; the others likewise.
    """
    rows = next(rows for header, rows in tables(card).items() if header.startswith("segment"))
    assert rows[0] == ["observation", "16.6", "1", "2", "7", "18", "24", "29", "30"]
    assert rows[1] == ["think", "3.0", *["3"] * 7]


def test_rows_lost_to_media_or_calls_are_listed(card: str) -> None:
    assert tables(card)["row/problem id/step/reason/detail"] == [
        ["5", "5", "media", "missing_file", r"clips/005.mp4 \| &lt;is\> not there"],
        ["11", "11", "generate", "call_failed", "529 overloaded"],
    ]


def test_a_long_list_of_lost_rows_is_cut_and_says_so(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        for row in range(60):
            ledger.add_question(question(row))
            lost = Rejection(Step.MEDIA, Reason.MISSING_FILE, "gone")
            ledger.add_rejection(question(row).question_id, lost)
        card = card_of(ledger, tmp_path)
    assert "60 questions, the first 50 of them" in card
    assert len(tables(card)["row/problem id/step/reason/detail"]) == 50
    assert tables(card)["step/left"][-1] == ["observation sufficient", "0"]


def test_provenance_names_runs_commit_versions_and_settings(card: str) -> None:
    header = "run/started (UTC)/ended (UTC)/exit/commit/command"
    assert tables(card)[header] == [
        [
            "run-20260101T000000Z-00000001",
            "2026-01-01 12:00:00",
            "–",
            "–",
            "0123456789ab",
            "pipeline.build_cot --out OUT",
        ]
    ]
    assert "Versions: duckdb 2.0.0, p2r 0.1.0." in card
    assert '"threshold": 0.6' in card
    assert "/home/somebody" not in card


def test_datasets_loads_the_output_folder_by_the_cards_front_matter(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        card = card_of(ledger, tmp_path)
    (tmp_path / "config.json").write_text('{"not": "data"}')
    (tmp_path / "progress.json").write_text('{"not": "data"}')
    loaded = datasets.load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 24
    assert loaded.column_names == list(COLUMNS)
    front = yaml.safe_load(card.split("---")[1])
    assert front["size_categories"] == ["n<1K"]
    assert front["task_categories"] == ["video-text-to-text"]
    assert {"license", "license_name", "license_link"} <= front.keys()


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        ({"data_source": "sandbox/events"}, {}),
        ({}, {"generator": "oracle:7,wrong=0.2"}),
    ],
)
def test_a_scripted_world_is_warned_of(
    tmp_path: Path, fields: dict[str, Any], columns: dict[str, Any]
) -> None:
    with empty_ledger(tmp_path) as ledger:
        asked = question(0, **fields)
        ledger.add_question(asked)
        add_attempt(ledger, asked, **columns)
        card = card_of(ledger, tmp_path)
    assert "> **Warning: scripted world, not real data.**" in card
    assert "sandbox" in yaml.safe_load(card.split("---")[1])["tags"]


def test_real_data_is_not_warned_of(card: str) -> None:
    assert "scripted world" not in card
    assert "Unfinished" not in card


def test_a_stopped_builds_card_says_how_many_are_open(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        ledger.add_questions(question(row) for row in range(40, 45))
        card = card_of(ledger, tmp_path)
    assert "> **Unfinished.** 5 of 36 questions have no outcome yet" in card
    assert tables(card)["step/left"][-2:] == [
        ["observation sufficient", "29"],
        ["accepted so far", "24"],
    ]
    assert "**7 rows not used, because:**" in card


def test_an_empty_build_has_a_card_too(tmp_path: Path) -> None:
    with empty_ledger(tmp_path) as ledger:
        card = card_of(ledger, tmp_path)
    assert "| rows | 0 of 0 questions (–) |" in card
    assert "No row was rejected." in card


def test_the_same_ledger_gives_the_same_card_and_pictures(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        first = card_of(ledger, tmp_path)
        pictures = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
        assert card_of(ledger, tmp_path) == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()} == pictures
    assert sorted(pictures) == ["funnel.png", "lengths.png"]


def test_the_dataset_id_names_rows_and_settings_and_nothing_else(tmp_path: Path) -> None:
    def id_of(name: str, number: int = 1, *, more: bool = False, **config: Any) -> str:
        (tmp_path / name).mkdir()
        with empty_ledger(tmp_path / name, number, **config) as ledger:
            fill(ledger, order=range(30) if number == 2 else ())
            if more:
                ledger.add_question(question(40))
                add_attempt(ledger, question(40))
            export_dataset(ledger, tmp_path / name)
            return collect_statistics(ledger, tmp_path / name / "dataset").dataset_id

    first = id_of("first")
    assert first.startswith("dataset-")
    assert id_of("again", 2, concurrency=3, output_dir="elsewhere", media_root="/mnt") == first
    others = [id_of("threshold", threshold=0.7), id_of("row", more=True)]
    assert len({first, *others}) == 3


def test_options_that_were_renamed_leave_the_dataset_id_as_it_is(tmp_path: Path) -> None:
    def id_of(name: str, **config: Any) -> str:
        (tmp_path / name).mkdir()
        with empty_ledger(tmp_path / name, **config) as ledger:
            export_dataset(ledger, tmp_path / name)
            return collect_statistics(ledger, tmp_path / name / "dataset").dataset_id

    before = id_of("before", reader="pyav", judge_retries=3)
    assert id_of("after", video_decoder="pyav", retries=3, plugin=["layout.py"]) == before
    assert id_of("other", video_decoder="decord", retries=3) != before


def test_a_copy_lies_under_the_dataset_id_with_its_pictures(tmp_path: Path) -> None:
    with built_ledger(tmp_path) as ledger:
        card = card_of(ledger, tmp_path, copy_to=tmp_path / "cards" / "deep")
        dataset_id = collect_statistics(ledger, tmp_path / "dataset").dataset_id
    assert f"`{dataset_id}`" in card
    copy = (tmp_path / "cards" / "deep" / f"{dataset_id}.md").read_text()
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", copy)
    assert links == [f"{dataset_id}/funnel.png", f"{dataset_id}/lengths.png"]
    assert all((tmp_path / "cards" / "deep" / link).is_file() for link in links)


def test_every_reason_has_a_meaning() -> None:
    assert set(REASON_MEANINGS) == set(Reason)


def test_every_column_is_described(card: str) -> None:
    assert [row[0].strip("`") for row in tables(card)["column/holds"]] == list(COLUMNS)


@pytest.mark.parametrize(
    ("num_rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (162_062, "100K<n<1M"),
        (10_000_000, "n>10M"),
    ],
)
def test_size_categories_are_the_hubs(num_rows: int, name: str) -> None:
    assert size_category(num_rows) == name


def test_a_later_runs_settings_are_the_cards(tmp_path: Path) -> None:
    with built_ledger(tmp_path):
        pass
    with Ledger.open(tmp_path / "cot.duckdb", run_info(2, frames="uniform:8")) as ledger:
        ledger.end_run(0)
        card = card_of(ledger, tmp_path)
    assert '"frames": "uniform:8"' in card
    runs = tables(card)["run/started (UTC)/ended (UTC)/exit/commit/command"]
    assert [row[0][-8:] for row in runs] == ["00000001", "00000002"]
    assert runs[1][3] == "0"
