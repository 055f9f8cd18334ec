"""Rows of each published annotation format, and question files made of them."""

import json
from pathlib import Path
from typing import Any

from schemas.annotations.reader import UnreadableRow, read_questions
from schemas.questions import VideoQuestion

ROW: dict[str, Any] = {
    "problem_id": 29,
    "problem": "Where is the person?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. Indoors", "B. Outdoors", "C. In the kitchen"],
    "process": "",
    "solution": "<answer>C</answer>",
    "path": "./Train/video_3217.mp4",
    "data_source": "PerceptionTest/train",
}
SEED_ROW: dict[str, Any] = {
    "sample_id": 7,
    "video_source": "EpicKitchens",
    "video_basename": "P22_07.mp4",
    "current_observation_basename": "P22_07.png",
    "task_progress_metadata": [{"narration_text": "move", "start_frame": 0, "stop_frame": 49}],
    "question": "What should I do next?",
    "answer": "clean microwave",
    "negative_answers": ["move detergent", "spray", "turn tap off", "wash sponge", "take sponge"],
}
VALIDATION_ROW = {key: value for key, value in SEED_ROW.items() if key != "negative_answers"} | {
    "choice_a": "move detergent",
    "choice_b": "clean microwave",
    "choice_c": "spray",
    "choice_d": "wash sponge",
    "golden_choice_idx": "B",
}
VIDEO = {
    "metadata": {"split": "valid", "video_id": "video_10", "frame_rate": 30.0, "num_frames": 900},
    "mc_question": [
        {"id": 0, "question": "Moving?", "options": ["yes", "no", "unsure"], "answer_id": 2},
        {"id": 1, "question": "Lamp on?", "options": ["yes", "no", "unsure"], "answer_id": 0},
    ],
    "grounded_question": [{"id": 0, "question": "Track the lamp"}],
}
CSV_HEADER = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"


def write(tmp_path: Path, content: Any, name: str = "questions.json") -> Path:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(
    tmp_path: Path, content: Any, name: str = "questions.json", **options: Any
) -> list[VideoQuestion | UnreadableRow]:
    return list(read_questions(write(tmp_path, content, name), **options))


def question(rows: list[VideoQuestion | UnreadableRow], row: int = 0) -> VideoQuestion:
    found = rows[row]
    assert isinstance(found, VideoQuestion), found
    return found


def unreadable(rows: list[VideoQuestion | UnreadableRow], row: int = 0) -> UnreadableRow:
    found = rows[row]
    assert isinstance(found, UnreadableRow), found
    return found


def csv_row(**changes: str) -> str:
    cells = {"video_id": "11", "frame_count": "99", "width": "640", "height": "480"}
    cells |= {"question": '"why, then"', "answer": "cap", "qid": "3", "type": "CW"}
    cells |= {"a0": "scarf", "a1": "cap", "a2": "turban", "a3": "hat ", "a4": "scarf"}
    return ",".join((cells | changes).values())
