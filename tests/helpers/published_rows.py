"""One row of each published layout, made up in the published shape, and what it must become."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Published:
    """A file of one record: its format, its form, the record, and the question it holds.

    `gold_of` is the gold answer of any such record as a text (that of the option, where there are
    options), by the rule of the layout alone.
    """

    name: str
    form: str
    record: Any
    problem: str
    options: tuple[str, ...]
    solution: str
    path: str
    gold_of: Callable[[Any], Any]
    problem_type: str = "multiple choice"
    span: tuple[float, float] | None = None


def write_published(folder: Path, row: Published, records: list[Any] | None = None) -> Path:
    """A file of the records (by default the row's own one) in the row's form."""
    return write_form(folder, row.form, [row.record] if records is None else records)


def write_form(folder: Path, form: str, records: list[Any]) -> Path:
    """`array`, `object` (the members of all records), `lines`, `csv`, `text` or `parquet`."""
    path = folder / f"rows.{ {'lines': 'jsonl', 'text': 'txt'}.get(form, form) }"
    match form:
        case "array":
            path.write_text(json.dumps(records, indent=1))
        case "object":
            path.write_text(json.dumps({key: each[key] for each in records for key in each}))
        case "lines":
            path.write_text("".join(json.dumps(each) + "\n" for each in records))
        case "text":
            path.write_text("".join(f"{each}\n" for each in records))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
        case _:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(records[0]))
                writer.writeheader()
                writer.writerows(records)
    return path


def _at(options: Any, letter: Any) -> Any:
    """The text at a letter of a mapping or a list, by the list's own marks, else by place."""
    if isinstance(options, Mapping):
        return options[letter]
    marked = [text for text in options if text.startswith(f"{letter}. ")]
    if marked and all(text[1:3] == ". " for text in options):
        return marked[0].split(". ", 1)[1]
    return options["ABCDEFGHIJ".index(letter)]


def _chat_gold(record: Any) -> Any:
    asked, answered = (message["content"] for message in record["messages"])
    return _inline(asked.removeprefix("<video>"), answered.split(". ", 1)[0])


def _inline(question: str, letter: str) -> str:
    lines = (line.strip("(").replace(")", ".") for line in question.split("\n")[1:])
    return dict(line.split(". ", 1) for line in lines if ". " in line)[letter]


def _untouched(*places: Callable[[Any], Any]) -> Callable[[Any], str]:
    """The gold answer `blue` of records in which these places are as they were written."""

    def gold(record: Any) -> str:
        if any(str(place(record)) not in _WRITTEN for place in places):
            raise ValueError("another record: its gold answer is not known here")
        return "blue"

    return gold


THREE = ["red", "blue", "green"]
ABC = ("A. red", "B. blue", "C. green")
LETTERED = ["A. red", "B. blue", "C. green"]
BY_LETTER = {"A": "red", "B": "blue", "C": "green"}
EMPTY = {"A": "", "B": "", "C": "", "D": ""}
INLINE = "Which colour is first?\nA. red\nB. blue\nC. green"
_LLAVA = f"<image>\n{INLINE}\nPlease respond with only the letter."
_WRITTEN = (INLINE, _LLAVA, "B.", "<answer>B</answer>")
FIRST = "Which colour is first?"
CHAT = [
    {"role": "user", "content": f"<video>{INLINE}\nAnswer with the option's letter directly."},
    {"role": "assistant", "content": "B. blue"},
]
OPEN_CHAT = [
    {"role": "user", "content": "<video>What happens?"},
    {"role": "assistant", "content": "A door opens slowly."},
]


def _row(
    name: str, form: str, record: Any, gold_of: Callable[[Any], Any], **other: Any
) -> Published:
    settings: dict[str, Any] = {
        "problem": FIRST,
        "options": ABC,
        "solution": "B",
        "path": "clip.mp4",
    }
    return Published(name, form, record, gold_of=gold_of, **settings | other)


_GROUNDING = {"options": (), "problem_type": "temporal grounding"}
_FREE = {"options": (), "problem_type": "free-form"}
_DOOR = 'When does this happen in the video: "a door opens."'
_VIDEO_MME = {
    "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Humanity",
    "url": "https://www.youtube.com/watch?v=fFjv93ACGo8", "videoID": "clip",
    "question_id": "001-1", "task_type": "Counting Problem", "question": FIRST,
    "options": LETTERED, "answer": "B",
}  # fmt: skip
_MVBENCH = {"video": "clip.mp4", "question": FIRST, "candidates": THREE, "answer": "blue"}
_VSI = {
    "id": 7, "dataset": "scannet", "scene_name": "scene0011_00", "question_type": "rel_direction",
    "question": FIRST, "ground_truth": "B", "options": LETTERED,
}  # fmt: skip
_MMVU = {
    "id": "validation_0",
    "video": "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/videos/Art/0.mp4",
    "youtube_url": "https://www.youtube.com/watch?v=x", "question_type": "multiple-choice",
    "metadata": {"subject": "Art", "textbook": "T", "rationale": "R", "key_concept": ["K"]},
    "question": FIRST, "choices": BY_LETTER, "answer": "B",
}  # fmt: skip
_VIDEOMMMU = {
    "id": "clip", "question": FIRST, "options": THREE, "answer": "B", "link_selected": "https://y",
    "question_type": "multiple-choice",
}  # fmt: skip
_VCR = {
    "id": 3, "video_path": "clip.mp4", "duration": 56, "dimension": "Video Plot Analysis",
    "question": f"{FIRST}A. red\nB. blue\nC. green\n", "multiple-choice": True,
    "choices": BY_LETTER | {"D": ""}, "answer": "B", "reasoning": ["1. 0:08-0:30, it is blue."],
    "response": "B. blue",
}  # fmt: skip
_LONG = {
    "video_id": "x", "id": "x_0", "video_path": "clip.mp4", "subtitle_path": "x_en.json",
    "question": FIRST, "candidates": THREE, "correct_choice": 1, "duration": 12.5,
    "duration_group": 15, "question_category": "T2E", "topic_category": "NP",
    "level": "L1-Perception",
    "position": [1], "starting_timestamp_for_subtitles": 0, "view_count": 3,
    "question_wo_referring_query": "Which?",
}  # fmt: skip
_MLVU = {
    "video": "clip.mp4", "duration": 480.0, "question": FIRST, "candidates": THREE,
    "answer": "blue", "question_type": "plotQA",
}  # fmt: skip
_CG = {
    "video_uid": "clip", "qid": 12, "question": FIRST, "choices": THREE, "answer": "blue",
    "right_answer": "B", "clue_intervals": [[3, 5.5], [8, 9]], "domain": "Life Record",
    "sub_category": "Tutorial", "duration": 600.0,
}  # fmt: skip
_LV_ROW = {
    "uid": "4", "question": f"{FIRST}\n(A) red\n(B) blue\n(C) green", "answer": "B",
    "question_type": ["key information retrieval"], "time_reference": "00:15-00:19",
}  # fmt: skip
_HOLMES = {
    "video ID": "clip", "Question ID": "0", "Question Type": "SR", "Question": FIRST,
    "Options": BY_LETTER | {"D": "grey"}, "Answer": "B", "Explanation": "It is blue.",
}  # fmt: skip
_PERCEPTION = {
    "video_name": "clip", "question": FIRST, "options": THREE, "answer_id": 1, "question_id": 5,
    "area": "physics", "reasoning": "descriptive", "tag": ["motion"],
}  # fmt: skip
_CAPTIONING = (
    "You will be presented with a video and several pieces of information. Generate a caption.\n"
    "Information A: {'subject': 'man', 'action': 'dribbling'}\n"
    "Information B: {'subject': 'man', 'action': 'dunking'}\nGenerated Caption:"
)

PUBLISHED: tuple[Published, ...] = (
    _row("video-mme", "array", _VIDEO_MME, lambda r: _at(r["options"], r["answer"])),
    _row("video-mme", "parquet", _VIDEO_MME, lambda r: _at(r["options"], r["answer"])),
    _row("mvbench", "array", _MVBENCH, lambda r: r["answer"]),
    _row(
        "mvbench", "array", _MVBENCH | {"start": 1.5, "end": 4, "accurate_start": 1.7},
        lambda r: r["answer"], span=(1.5, 4.0),
    ),
    _row(
        "mvbench", "array", _MVBENCH | {"candidates": ["l", "a", "e"], "answer": "a"},
        lambda r: r["answer"], options=("A. l", "B. a", "C. e"),
    ),
    _row(
        "vsi-bench", "array", _VSI, lambda r: _at(r["options"], r["ground_truth"]),
        path="scannet/scene0011_00.mp4",
    ),
    _row(
        "vsi-bench", "array", _VSI | {"options": None, "ground_truth": "4"},
        lambda r: r["ground_truth"], path="scannet/scene0011_00.mp4", options=(), solution="4",
        problem_type="regression",
    ),
    _row("mmvu", "array", _MMVU, lambda r: _at(r["choices"], r["answer"]), path="videos/Art/0.mp4"),
    _row(
        "mmvu", "lines",
        _MMVU | {"choices": EMPTY, "question_type": "open-ended", "answer": "gouache"},
        lambda r: r["answer"], path="videos/Art/0.mp4", solution="gouache", **_FREE,
    ),
    _row("videommmu", "array", _VIDEOMMMU, lambda r: _at(r["options"], r["answer"])),
    _row(
        "videommmu", "array", _VIDEOMMMU | {"options": [], "answer": "12.5"}, lambda r: r["answer"],
        options=(), solution="12.5", problem_type="numerical",
    ),
    _row("vcr-bench", "array", _VCR, lambda r: _at(r["choices"], r["answer"])),
    _row(
        "vcr-bench", "array",
        _VCR
        | {"question": "Where?", "multiple-choice": False, "choices": EMPTY, "answer": "Kitchen"},
        lambda r: r["answer"], problem="Where?", solution="Kitchen", **_FREE,
    ),
    _row(
        "tempcompass", "object", {"clip": {"action": [{"question": INLINE, "answer": "B. blue"}]}},
        lambda r: r["clip"]["action"][0]["answer"].split(". ", 1)[-1],
    ),
    _row(
        "tempcompass", "object",
        {"clip": {"speed": [{"question": "Is it fast?", "answer": "yes"}]}},
        lambda r: r["clip"]["speed"][0]["answer"], problem="Is it fast?", solution="yes", **_FREE,
    ),
    _row(
        "tempcompass", "object",
        {"clip": {"speed": [
            {"question": "Which caption fits?\nOption 1: It is red.\nOption 2: It is blue.",
             "answer": "Option 2: It is blue."}
        ]}},
        lambda r: r["clip"]["speed"][0]["answer"].split(": ", 1)[-1],
        problem="Which caption fits?", options=("A. It is red.", "B. It is blue."),
    ),
    _row(
        "tempcompass", "object",
        {"clip": {"action": [{"question": _CAPTIONING, "answer": "B. dunking"}]}},
        lambda r: "{'subject': 'man', 'action': 'dunking'}",
        problem=_CAPTIONING.partition("\n")[0],
        options=(
            "A. {'subject': 'man', 'action': 'dribbling'}",
            "B. {'subject': 'man', 'action': 'dunking'}",
        ),
    ),
    _row(
        "tempcompass", "parquet",
        {"video_id": "clip", "question": "Describe.", "answer": "-", "dim": "action",
         "mc_question": INLINE, "mc_answer": "B. blue"},
        lambda r: r["mc_answer"].split(". ", 1)[-1],
    ),
    _row("longvideobench", "array", _LONG, lambda r: r["candidates"][r["correct_choice"]]),
    _row(
        "longvideobench", "parquet",
        {**{k: v for k, v in _LONG.items() if k != "candidates"}, "option0": "red",
         "option1": "blue", "option2": "green", "option3": "N/A", "option4": "N/A"},
        lambda r: r[f"option{r['correct_choice']}"],
    ),
    _row("mlvu", "array", _MLVU, lambda r: r["answer"]),
    _row(
        "mlvu", "array",
        {k: v for k, v in _MLVU.items() if k != "candidates"} | {"question_type": "summary"},
        lambda r: r["answer"], solution="blue", **_FREE,
    ),
    _row("cg-bench", "array", _CG, lambda r: r["answer"]),
    _row(
        "lvbench", "lines", {"key": "clip", "type": "sport", "qa": [_LV_ROW]},
        lambda r: _inline(r["qa"][0]["question"], r["qa"][0]["answer"]),
    ),
    _row(
        "lvbench", "parquet",
        {"video_path": "clip.mp4", "question": FIRST, "answer": "B", "options": THREE},
        lambda r: _at(r["options"], r["answer"]),
    ),
    _row(
        "video-holmes", "array", _HOLMES, lambda r: _at(r["Options"], r["Answer"]),
        options=(*ABC, "D. grey"),
    ),
    _row("perception-test", "parquet", _PERCEPTION, lambda r: r["options"][r["answer_id"]]),
    _row(
        "charades-sta", "text", "clip 1.5 6.9##a door opens.", lambda r: "1.5 to 6.9",
        problem=_DOOR, solution="1.5 to 6.9", **_GROUNDING,
    ),
    _row(
        "charades-sta", "parquet",
        {"video": "clip.mp4", "timestamp": [1.5, 6.9], "caption": "a door opens."},
        lambda r: f"{r['timestamp'][0]:g} to {r['timestamp'][1]:g}",
        problem=_DOOR, solution="1.5 to 6.9", **_GROUNDING,
    ),
    _row(
        "activitynet-captions", "object",
        {"clip": {"duration": 82.73, "timestamps": [[0.83, 19.86]],
                  "sentences": ["a door opens."]}},
        lambda r: "{:.10g} to {:.10g}".format(*r["clip"]["timestamps"][0]),
        problem=_DOOR, solution="0.83 to 19.86", **_GROUNDING,
    ),
    _row(
        "activitynet-captions", "parquet",
        {"video_id": "v", "video_path": "clip.mp4", "duration": 82.7, "captions_starts": [0.83],
         "captions_ends": [19.86], "en_captions": ["a door opens."]},
        lambda r: f"{r['captions_starts'][0]:.10g} to {r['captions_ends'][0]:.10g}",
        problem=_DOOR, solution="0.83 to 19.86", **_GROUNDING,
    ),
    _row(
        "llava-video-178k", "array",
        {"id": "clip_0", "data_source": "academic", "video": "clip.mp4", "conversations": [
            {"from": "human", "value": _LLAVA},
            {"from": "gpt", "value": "B."},
        ]},
        _untouched(
            lambda r: r["conversations"][0]["value"], lambda r: r["conversations"][1]["value"]
        ),
    ),
    _row(
        "llamafactory", "array", {"messages": CHAT, "videos": ["clip.mp4"]}, _chat_gold
    ),
    _row(
        "llamafactory", "array",
        {"conversations": [{"from": "human", "value": "<video>What happens?"},
                           {"from": "gpt", "value": "A door opens slowly."}],
         "videos": ["clip.mp4"]},
        lambda r: r["conversations"][1]["value"], problem="What happens?",
        solution="A door opens slowly.", **_FREE,
    ),
    _row("ms-swift", "lines", {"messages": CHAT, "videos": ["clip.mp4"]}, _chat_gold),
    _row(
        "ms-swift", "lines",
        {"query": "<video>What happens?", "response": "A door opens slowly.", "history": [],
         "videos": ["clip.mp4"]},
        lambda r: r["response"], problem="What happens?", solution="A door opens slowly.", **_FREE,
    ),
    _row(
        "trl", "lines",
        {"messages": [
            {"role": "user", "content": [{"type": "video", "video": "clip.mp4"},
                                         {"type": "text", "text": INLINE}]},
            {"role": "assistant", "content": [{"type": "text", "text": "<answer>B</answer>"}]},
        ]},
        _untouched(
            lambda r: r["messages"][0]["content"][1]["text"],
            lambda r: r["messages"][1]["content"][0]["text"],
        ),
    ),
    _row(
        "trl", "array",
        {"prompt": [{"role": "user", "content": INLINE}], "solution": "<answer>B</answer>",
         "videos": ["clip.mp4"]},
        _untouched(lambda r: r["prompt"][0]["content"], lambda r: r["solution"]),
    ),
    _row("trl", "parquet", {"messages": OPEN_CHAT, "videos": ["clip.mp4"]},
         lambda r: r["messages"][1]["content"], problem="What happens?",
         solution="A door opens slowly.", **_FREE),
    _row(
        "verl", "parquet",
        {"data_source": "tiny", "prompt": [{"role": "user", "content": f"<video>{INLINE}"}],
         "videos": [{"video": "clip.mp4", "fps": 2.0, "max_frames": 16}], "ability": "video",
         "reward_model": {"style": "rule", "ground_truth": "B"}, "extra_info": {"index": 0}},
        lambda r: _inline(INLINE, r["reward_model"]["ground_truth"]),
    ),
    _row(
        "nemo-gym", "lines",
        {"responses_create_params": {"input": [{"role": "user", "content": [
            {"type": "input_video", "video_url": "file://clip.mp4"},
            {"type": "input_text", "text": INLINE}]}]},
         "options": [{"A": "red"}, {"B": "blue"}, {"C": "green"}], "expected_answer": "B"},
        lambda r: next(o[r["expected_answer"]] for o in r["options"] if r["expected_answer"] in o),
    ),
    _row(
        "easyvideor1", "array",
        {"problem": f"<video>{FIRST}", "answer": "<answer>B</answer>", "videos": ["clip.mp4"],
         "data_type": "video", "problem_type": "multiple choice", "options": LETTERED,
         "has_offline_trajectory": False, "offline_output": ""},
        lambda r: _at(r["options"], r["answer"].removeprefix("<answer>").removesuffix("</answer>")),
    ),
    _row(
        "easyvideor1", "array",
        {"problem": "<video>When?", "answer": "[1.5, 6.9]", "videos": ["clip.mp4"],
         "data_type": "video", "problem_type": "temporal grounding", "options": []},
        lambda r: "{} to {}".format(*json.loads(r["answer"])),
        problem="When?", solution="1.5 to 6.9", **_GROUNDING,
    ),
    _row(
        "roll", "lines",
        {"modality_type": "video", "problem": INLINE, "solution": "<answer>B</answer>",
         "video": "clip.mp4", "problem_type": "multiple choice"},
        _untouched(lambda r: r["problem"], lambda r: r["solution"]),
    ),
    _row(
        "columns", "csv",
        {"problem": FIRST, "options": "red|blue|green", "solution": "blue", "path": "clip.mp4"},
        lambda r: r["solution"],
    ),
    _row(
        "columns", "parquet",
        {"problem": FIRST, "options": THREE, "solution": "B", "path": "clip.mp4"},
        lambda r: _at(r["options"], r["solution"]),
    ),
)  # fmt: skip
