"""Every published layout is found by itself and read as it was meant."""

import copy
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fuzz.nasty import mutated_json
from helpers.published_rows import (
    ABC,
    LETTERED,
    PUBLISHED,
    THREE,
    Published,
    write_published,
)
from helpers.question_files import question
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.annotations.reader import UnreadableRow, format_found, read_questions
from schemas.questions import VideoQuestion

each_layout = pytest.mark.parametrize(
    "row", PUBLISHED, ids=[f"{row.name}-{row.form}-{n}" for n, row in enumerate(PUBLISHED)]
)


@each_layout
def test_a_row_as_published_is_found_and_read(tmp_path: Path, row: Published) -> None:
    path = write_published(tmp_path, row)
    assert format_found(path) == row.name
    (found,) = read_questions(path)
    assert isinstance(found, VideoQuestion), found
    assert (found.problem, found.options) == (row.problem, row.options)
    assert (found.solution, found.problem_type.value) == (row.solution, row.problem_type)
    (ref,) = found.media
    assert (ref.kind, ref.path, ref.span) == ("video", row.path, row.span)
    assert list(read_questions(path, format=row.name)) == [found]


def gold_text(question: VideoQuestion) -> str:
    """The gold answer as a text: that of the option, where there are options."""
    by_letter = dict(option.split(". ", 1) for option in question.options)
    return by_letter.get(question.solution, question.solution)


PERMUTED = [row for row in PUBLISHED if row.options == ABC and row.form not in ("object", "csv")]


def permuted(row: Published, order: list[int]) -> Any:
    """The record with its options in another order, and the gold answer that is still the same."""
    record = copy.deepcopy(row.record)
    texts = [THREE[place] for place in order]
    letter = "ABC"[texts.index("blue")]
    lines = "\n".join(f"{name}. {text}" for name, text in zip("ABC", texts, strict=True))

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() >= set("ABC"):
                return value | dict(zip("ABC", texts, strict=True))
            return {key: renamed(each) for key, each in value.items()}
        if isinstance(value, list):
            if value == THREE:
                return texts
            if value == LETTERED:
                return lines.split("\n")
            if value and all(isinstance(each, dict) and len(each) == 1 for each in value):
                return [{name: text} for name, text in zip("ABC", texts, strict=True)]
            return [renamed(each) for each in value]
        if isinstance(value, str):
            value = value.replace("A. red\nB. blue\nC. green", lines)
            value = value.replace("(A) red\n(B) blue\n(C) green", lines)
            changed = re.sub(r"\AB(?=\Z|\.)|(?<=>)B(?=<)", letter, value)
            return {"option0": value, "B": letter}.get(value, changed)
        return value

    record = renamed(record)
    for field in ("correct_choice", "answer_id"):
        if field in record:
            record[field] = texts.index("blue")
    return record | {f"option{n}": text for n, text in enumerate(texts) if f"option{n}" in record}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PERMUTED), st.permutations(range(3)))
def test_permuting_the_options_permutes_the_gold_answer(
    tmp_path: Path, row: Published, order: list[int]
) -> None:
    (found,) = read_questions(write_published(tmp_path, row, [permuted(row, order)]))
    assert isinstance(found, VideoQuestion), found
    assert [option[3:] for option in found.options] == [THREE[place] for place in order]
    assert gold_text(found) == "blue"


def test_most_layouts_with_options_are_permuted() -> None:
    assert len({row.name for row in PERMUTED}) >= 18


def test_the_gold_rule_of_each_row_tells_its_gold_answer(tmp_path: Path) -> None:
    """The check of the mutated rows below has teeth only if this holds."""
    for row in PUBLISHED:
        (found,) = read_questions(write_published(tmp_path, row))
        assert isinstance(found, VideoQuestion)
        assert gold_text(found) == row.gold_of(row.record), row.name


MUTATED = [row for row in PUBLISHED if row.form in ("array", "lines")]


@pytest.mark.parametrize("seed", range(20))
def test_a_mutated_row_is_read_right_or_refused_in_a_sentence(tmp_path: Path, seed: int) -> None:
    """2,000 rows over all layouts. Where options and gold are as published, so is the question."""
    draw = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for _ in range(100):
        row = draw.choice(MUTATED)
        record = mutated_json(draw, row.record, 2)
        path = write_published(tmp_path, row, [row.record, record])
        first, *rest = read_questions(path, format=row.name)
        assert isinstance(first, VideoQuestion)
        found = rest[0] if rest else None
        if not isinstance(found, VideoQuestion):
            outcomes["row"] += 1
            assert found is None or (found.detail and "\n" not in found.detail)
            assert found is None or "TypeError" not in found.detail, (row.name, record, found)
            continue
        outcomes["read"] += 1
        check_gold(row, record, found)
    assert outcomes["read"] >= 5
    assert outcomes["row"] >= 5


def check_gold(row: Published, record: Any, found: VideoQuestion) -> None:
    """The gold answer by the rule of the layout, as far as that rule can be followed."""
    try:
        gold = row.gold_of(record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration):
        return
    if isinstance(gold, str | int | float) and not isinstance(gold, bool):
        assert plain(gold_text(found)) == plain(str(gold)), (row.name, record, found)


def plain(text: str) -> str:
    """Without a mark in front: where the marks of a list no longer fit, they are part of texts."""
    return re.sub(r"\A[a-z]\. ", "", " ".join(text.split()).strip(".").casefold())


def test_cg_bench_whose_two_golds_differ_is_refused(tmp_path: Path) -> None:
    row = next(row for row in PUBLISHED if row.name == "cg-bench")
    (found,) = read_questions(write_published(tmp_path, row, [row.record | {"answer": "red"}]))
    assert isinstance(found, UnreadableRow)
    assert "'right_answer': is B, but the text in 'answer' is that of option A" in found.detail


def test_what_a_benchmark_says_besides_is_kept(tmp_path: Path) -> None:
    rows = {row.name: row for row in reversed(PUBLISHED)}
    found = {
        name: question(list(read_questions(write_published(tmp_path, rows[name]))))
        for name in ("video-mme", "vsi-bench", "cg-bench", "longvideobench", "video-holmes")
    }
    assert (found["video-mme"].level, found["video-mme"].problem_id) == ("short", "001-1")
    assert found["vsi-bench"].data_source == "VSI-Bench/rel_direction"
    assert found["cg-bench"].time_clues == ((3.0, 5.5), (8.0, 9.0))
    assert found["longvideobench"].level == "15"
    assert found["video-holmes"].data_source == "Video-Holmes/SR"


def test_a_picture_inside_of_a_table_is_refused(tmp_path: Path) -> None:
    row = next(row for row in PUBLISHED if row.name == "videommmu")
    records = [
        row.record | {"image": {"bytes": "x", "path": None}},
        row.record | {"image": "a.png"},
    ]
    bad, good = read_questions(write_published(tmp_path, row, records))
    assert isinstance(bad, UnreadableRow)
    assert "is stored inside of the table: save it as a file" in bad.detail
    assert isinstance(good, VideoQuestion)
    assert [(ref.kind, ref.path) for ref in good.media] == [
        ("video", "clip.mp4"),
        ("image", "a.png"),
    ]


@pytest.mark.parametrize("is_choice", [False, "true", None])
def test_vcr_bench_says_itself_whether_it_is_multiple_choice(
    tmp_path: Path, is_choice: object
) -> None:
    row = next(row for row in PUBLISHED if row.name == "vcr-bench")
    record = row.record | {"multiple-choice": is_choice}
    (found,) = read_questions(write_published(tmp_path, row, [record]))
    assert isinstance(found, UnreadableRow)


def test_lvbench_lines_hold_several_questions(tmp_path: Path) -> None:
    row = next(row for row in PUBLISHED if row.name == "lvbench")
    asked = row.record["qa"][0]
    record = row.record | {"qa": [asked, 3, asked | {"question": "Why?"}]}
    first, number, *_ = read_questions(write_published(tmp_path, row, [record]))
    assert isinstance(first, VideoQuestion)
    assert isinstance(number, UnreadableRow)
    assert "expected an object, got 3" in number.detail
