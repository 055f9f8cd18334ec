"""Grounding layouts: each sentence with its own seconds, and nothing without."""

import re
from pathlib import Path

import pytest
from helpers.published_rows import write_form
from helpers.question_files import question, unreadable

from schemas.annotations.reader import format_found, read_questions

VIDEO = {"duration": 30, "timestamps": [[0.5, 3], [4, 29.25]], "sentences": ["one", "two"]}


def test_lines_of_charades_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    lines = ["AO8RW 0.0 6.9##a person sits.", "", "AO8RW 7 3##stands.", "no line"]
    path = write_form(tmp_path, "text", lines)
    assert format_found(path) == "charades-sta"
    rows = list(read_questions(path))
    assert question(rows).solution == "0 to 6.9"
    assert question(rows).media[0].path == "AO8RW.mp4"
    assert "expected 0 <= start < end in seconds, got 7 and 3" in unreadable(rows, 1).detail
    assert unreadable(rows, 1).line == 3
    assert "expected 'ID start end##sentence', got 'no line'" in unreadable(rows, 2).detail


def test_each_sentence_of_activitynet_has_its_own_seconds(tmp_path: Path) -> None:
    rows = list(read_questions(write_form(tmp_path, "object", [{"v_1": VIDEO, "v_2": VIDEO}])))
    assert [question(rows, n).solution for n in (0, 1)] == ["0.5 to 3", "4 to 29.25"]
    assert [question(rows, n).media[0].path for n in (1, 2)] == ["v_1.mp4", "v_2.mp4"]
    assert [question(rows, n).problem_id for n in (1, 2)] == ["v_1_1", "v_2_0"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sentences": ["one"]}, "1 sentences, but 2 spans"),
        ({"timestamps": [[0.5, 3], [29, 4]]}, "expected 0 <= start < end"),
        ({"timestamps": [[0.5, 3], [4]]}, r"expected \[start, end\] in seconds"),
        ({"timestamps": 3}, "expected a list, got 3"),
    ],
)
def test_sentences_without_seconds_of_their_own_are_refused(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    path = write_form(tmp_path, "object", [{"v_0": VIDEO, "v_1": VIDEO | change}])
    rows = list(read_questions(path))
    assert [question(rows, n).row for n in (0, 1)] == [0, 1]
    bad = unreadable(rows, len(rows) - 1)
    assert re.search(sentence, bad.detail)
