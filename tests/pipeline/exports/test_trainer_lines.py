"""LLaMA-Factory's and ms-swift's JSON Lines: their fields, places of media, what is left out.

Their own loaders read them in `test_released_loaders.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.built_ledger import add_attempt, question
from helpers.exports import WIDE, lines_of, load, places_of, trainer_ledger, trainer_questions

from pipeline.exports.formats import export_further
from pipeline.exports.llamafactory import export_llamafactory
from pipeline.exports.ms_swift import export_ms_swift
from schemas.annotations.reader import read_questions
from schemas.ledger.ledger import Ledger
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from train.integrations.completion_rewards import question_of

ROOT = Path("/data/clips")
# Published: data/mllm_video_demo.json and data/dataset_info.json of LLaMA-Factory 0.9.5.
DEMO = {
    "messages": [
        {"content": "<video>Why is this video funny?", "role": "user"},
        {"content": "Because a baby is reading, and he is so cute!", "role": "assistant"},
    ],
    "videos": ["mllm_demo_data/1.mp4"],
}
DEMO_INFO = {
    "file_name": "mllm_video_demo.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "videos": "videos"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
    },
}


def shape(value: object) -> object:
    """Names and types, without texts."""
    if isinstance(value, Mapping):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value)


def prompt_of(number: int) -> str:
    return task_prompt(trainer_questions()[number]).text


def target_of(number: int, gold: str) -> str:
    seen = " ".join(["seen"] * (number + 1))
    return (
        f"<observation>{seen}</observation> <think>thought {number} 0</think>"
        f"<answer>{gold}</answer>"
    )


def export(name: str, ledger: Ledger, out: Path) -> Any:
    if name == "llamafactory":
        return export_llamafactory(ledger, out)
    return export_ms_swift(ledger, out, ROOT)


def test_llamafactory_rows_have_the_fields_of_its_published_example(tmp_path: Path) -> None:
    with trainer_ledger(tmp_path) as ledger:
        export_llamafactory(ledger, tmp_path)
    folder = tmp_path / "llamafactory"
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
    assert list(info) == ["p2r_video", "p2r_image", "p2r_mixed"]
    assert info["p2r_video"] == DEMO_INFO | {"file_name": "p2r_video.jsonl"}
    assert info["p2r_image"]["columns"] == {"messages": "messages", "images": "images"}
    assert set(info["p2r_mixed"]["columns"]) == {"messages", "images", "videos"}
    first, second = lines_of(folder / "p2r_video.jsonl")
    assert shape(first) == shape(DEMO)
    assert first == {
        "messages": [
            {"role": "user", "content": "<video>" + prompt_of(0)},
            {"role": "assistant", "content": target_of(0, "B")},
        ],
        "videos": ["clips/a.mp4"],
    }
    assert WIDE in first["messages"][0]["content"]
    assert second["videos"] == ["clips/a.mp4", "clips/b b.mp4"]
    assert second["messages"][1]["content"] == target_of(1, "thing 1 “happens”")


def test_ms_swift_rows_have_absolute_paths_and_what_rewards_read(tmp_path: Path) -> None:
    with trainer_ledger(tmp_path) as ledger:
        exported = export_ms_swift(ledger, tmp_path, ROOT)
    assert exported.media_below == ROOT
    first, _ = lines_of(tmp_path / "ms-swift/p2r_video.jsonl")
    assert list(first) == ["messages", "videos", "question", "solution"]
    assert first["messages"][0] == {"role": "user", "content": "<video>" + prompt_of(0)}
    assert first["videos"] == ["/data/clips/clips/a.mp4"]
    assert question_of(first["question"]) == trainer_questions()[0]
    assert first["solution"] == "<answer>B</answer>"
    (image,) = lines_of(tmp_path / "ms-swift/p2r_image.jsonl")
    assert image["images"] == ["/data/clips/stills/é.png"]
    assert "videos" not in image


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_there_is_one_place_for_each_medium_in_its_order(tmp_path: Path, name: str) -> None:
    with trainer_ledger(tmp_path) as ledger:
        exported = export(name, ledger, tmp_path)
    rows = [row for path in (tmp_path / name).glob("*.jsonl") for row in lines_of(path)]
    assert len(rows) == exported.num_rows == 4
    for row in rows:
        user, assistant = (message["content"] for message in row["messages"])
        places = places_of(user)
        assert places_of(assistant) == []
        assert places.count("video") == len(row.get("videos", []))
        assert places.count("image") == len(row.get("images", []))
    (mixed,) = lines_of(tmp_path / name / "p2r_mixed.jsonl")
    assert places_of(mixed["messages"][0]["content"]) == ["image", "video", "image"]
    assert [Path(path).name for path in mixed["images"]] == ["é.png", "z.png"]


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_clips_and_texts_with_marks_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    reader = {"llamafactory": "LLaMA-Factory"}.get(name, name)
    with trainer_ledger(tmp_path) as ledger:
        exported = export(name, ledger, tmp_path)
    assert exported.num_left_out == 3
    assert exported.why_left_out == (
        "2 because their text holds a mark as <video> or <|im_end|>, which would be read as a"
        f" file's place or a turn's end; 1 because {reader} reads whole files, they show a part of"
        " one"
    )


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_a_mark_in_the_trace_counts_as_one_in_the_question_does(tmp_path: Path, name: str) -> None:
    asked = [question(0), question(2)]
    with trainer_ledger(tmp_path, asked[1:]) as ledger:
        ledger.add_question(asked[0])
        output = "<observation>An <image> of it.</observation> <think>t</think><answer>A</answer>"
        add_attempt(ledger, asked[0], output=output)
        exported = export(name, ledger, tmp_path)
    assert (exported.num_rows, exported.num_left_out) == (1, 1)


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_our_reader_takes_the_export_for_what_it_is(tmp_path: Path, name: str) -> None:
    with trainer_ledger(tmp_path) as ledger:
        export(name, ledger, tmp_path)
    (read,) = read_questions(tmp_path / name / "p2r_image.jsonl", format=name)
    assert isinstance(read, VideoQuestion)
    assert read.solution == trainer_questions()[2].solution
    assert [Path(ref.path).name for ref in read.media] == ["é.png"]


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_without_rows_there_is_an_empty_file_that_is_brought_up_to_date(
    tmp_path: Path, name: str
) -> None:
    with trainer_ledger(tmp_path, []) as ledger:
        export_further(ledger, tmp_path, [name])
        assert (tmp_path / name / "p2r_video.jsonl").read_bytes() == b""
        ledger.add_question(trainer_questions()[2])
        add_attempt(ledger, trainer_questions()[2])
        (said,) = export_further(ledger, tmp_path, [])
    assert "rows 1" in said
    assert said.endswith("(an earlier run asked for this format)")
    found = {path.name for path in (tmp_path / name).glob("*.jsonl")}
    assert found == {"p2r_image.jsonl"}, "a file without rows is gone"


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_datasets_loads_every_file_with_the_same_types(tmp_path: Path, name: str) -> None:
    """Both trainers read JSON Lines by `datasets`, which takes the types from the first rows."""
    with trainer_ledger(tmp_path) as ledger:
        export(name, ledger, tmp_path)
    for path in sorted((tmp_path / name).glob("*.jsonl")):
        rows = load(path, tmp_path / "cache", "json")
        assert rows.to_list() == lines_of(path)
