"""A model is evaluated: it sees each video, in any batch, and one bad file costs one row."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.evaluations import (
    answers_of,
    arguments,
    evaluate,
    outputs_of,
    read_rows,
    report_of,
    write_questions,
    write_world,
)
from helpers.training_world import FAMILIES, tiny_model_folder, write_clip

from cli.config import EXIT_OK, EXIT_ROWS_FAILED, UsageError
from media.sampling import FrameSpec
from schemas.annotations.reader import read_questions
from schemas.prompting import save_prompt_files
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.evaluation.answering.video_answerer import VideoAnswerer
from train.evaluation.eval_questions import batches_of, shuffled_media
from train.evaluation.predictions import Prediction
from train.modeling.loading import load_policy, load_processor
from train.rollouts.token_sampling import Sampling

pytestmark = pytest.mark.heavy


# Not of Qwen3.5: the greedy words of a random one hardly follow its video, though its logits do
# (`tests/train/data/test_model_inputs.py`).
@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_another_video_gives_another_answer_and_only_there(family: str, tmp_path: Path) -> None:
    questions = write_world(tmp_path / "world")
    assert evaluate(*arguments(family, questions, tmp_path / "one")) == EXIT_OK
    before = outputs_of(tmp_path / "one")
    assert list(before) == [f"q{number}" for number in range(8)]
    assert len(set(before.values())) > 3
    write_clip(tmp_path / "world" / "clip_0.mp4", seed=77)
    assert evaluate(*arguments(family, questions, tmp_path / "two")) == EXIT_OK
    after = outputs_of(tmp_path / "two")
    assert {name for name in before if before[name] != after[name]} == {"q0", "q4"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_or_broken_video_is_an_error_row_that_names_it(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = write_world(tmp_path / "world")
    assert evaluate(*arguments(family, questions, tmp_path / "whole")) == EXIT_OK
    whole = outputs_of(tmp_path / "whole")
    (tmp_path / "world" / "clip_1.mp4").unlink()
    (tmp_path / "world" / "clip_3.mp4").write_bytes(b"no video")
    status = evaluate(*arguments(family, questions, tmp_path / "out"))
    assert status == EXIT_ROWS_FAILED
    rows = {row["problem_id"]: row for row in answers_of(tmp_path / "out")}
    lost = {name for name, row in rows.items() if row["error"]}
    assert lost == {"q1", "q5", "q3"}
    assert "missing_file" in rows["q1"]["error"]
    assert "clip_1.mp4" in rows["q1"]["error"]
    assert "clip_3.mp4" in rows["q3"]["error"]
    assert all(rows[name]["output"] == "" for name in lost)
    assert {name: rows[name]["output"] for name in rows if name not in lost} == {
        name: output for name, output in whole.items() if name not in lost
    }
    report = report_of(tmp_path / "out")
    # They score 0 and count, and they are listed.
    assert (report["overall"]["tolerant"]["n"], report["overall"]["errors"]) == (8, 3)
    assert len(report["errors"]) == 3
    assert "clip_3.mp4" in capsys.readouterr().out


def test_shuffled_videos_are_what_the_model_says_about_the_other_clip(tmp_path: Path) -> None:
    questions = write_world(tmp_path / "world")
    family = FAMILIES[0]
    control = tmp_path / "control"
    assert evaluate(*arguments(family, questions, control, "--shuffle-videos")) == 1
    rows = {row["problem_id"]: row for row in answers_of(control)}
    # The only still has no other still to change places with: it is left out and told.
    assert "q7" not in rows
    assert "no other media" in report_of(control)["unreadable"][0]
    assert "another clip's frames" in report_of(control)["conditions"]["sentence"]
    shown = {name: row["shown"][0] for name, row in rows.items()}
    assert all(row["shown"] != row["paths"] for row in rows.values())
    assert len(set(shown.values())) == 4
    assert shown["q0"] == shown["q4"]
    # The same as files exchanged on disk.
    swapped = tmp_path / "swapped"
    for name, row in rows.items():
        target = swapped / row["paths"][0]
        target.parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "world" / shown[name], target)
    kept = write_questions(swapped / "questions.jsonl", read_rows(questions)[:7])
    assert evaluate(*arguments(family, kept, tmp_path / "exchanged")) == EXIT_OK
    assert outputs_of(tmp_path / "exchanged") == outputs_of(control)


def test_a_raised_limit_shows_nobody_another_clip(tmp_path: Path) -> None:
    questions = write_world(tmp_path / "world")
    options = arguments(FAMILIES[0], questions, tmp_path / "out", "--shuffle-videos")
    assert evaluate(*options, "--limit", "2") == EXIT_OK
    first = {row["problem_id"]: row["shown"] for row in answers_of(tmp_path / "out")}
    assert evaluate(*options, "--limit", "5") == EXIT_OK
    later = {row["problem_id"]: row["shown"] for row in answers_of(tmp_path / "out")}
    assert len(first) == 2
    assert {name: later[name] for name in first} == first
    assert later["q0"] == later["q4"]


def test_one_clip_cannot_be_shuffled(tmp_path: Path) -> None:
    write_world(tmp_path / "world")
    rows = read_rows(tmp_path / "world" / "questions.jsonl")
    alone = write_questions(tmp_path / "world" / "alone.jsonl", rows[:1])
    with pytest.raises(UsageError, match="at least two clips"):
        evaluate(*arguments(FAMILIES[0], alone, tmp_path / "out", "--shuffle-videos"))


def questions_in(path: Path) -> list[VideoQuestion]:
    return [row for row in read_questions(path) if isinstance(row, VideoQuestion)]


def test_shuffling_has_no_fixed_point_and_is_one_to_one(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path))
    for seed in range(20):
        shown = shuffled_media(questions, seed)
        assert len(shown) == 4
        assert set(shown) == set(shown.values())
        assert all(own != other for own, other in shown.items())
    assert shuffled_media(questions, 3) == shuffled_media(questions[::-1], 3)
    assert len({str(shuffled_media(questions, seed)) for seed in range(20)}) > 1


def test_batches_hold_each_question_once_the_longest_first(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path))
    lengths = {one.media: 10 if one.media[0].kind == "image" else 50 for one in questions}
    batches = list(batches_of(questions, lengths, 3))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    order = [one.row for batch in batches for one in batch]
    assert order == [0, 4, 1, 5, 2, 6, 3, 7]


class Room:
    """Memory for so many rows: more of them are torch's own error, at the model's door."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, module: Any, args: Any, inputs: dict[str, Any]) -> None:
        images = inputs.get("video_grid_thw")
        if images is not None and len(images) > self.rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(images)} videos")


def answered(
    questions: list[VideoQuestion], root: Path, batch_size: int, room: int | None
) -> tuple[list[Prediction], list[str]]:
    """The questions answered in this process, with room for so many videos, and what was said."""
    folder = tiny_model_folder(FAMILIES[0])
    model = load_policy(folder, device="cpu")
    if room is not None:
        model.register_forward_pre_hook(Room(room), with_kwargs=True)
    said: list[str] = []
    with FrameLoader(root, spec=FrameSpec("uniform:4", 56 * 56), cache_dir=None) as loader:
        answerer = VideoAnswerer(
            model,
            VideoInputs(load_processor(folder), loader, TEMPLATES["p2r"]),
            Sampling(8, temperature=0.01, top_p=0.001),
            seed=0,
            say=said.append,
        )
        lengths = {one.media: 1 for one in questions}
        batches = batches_of(questions, lengths, batch_size)
        found = [one for batch in answerer.answers(batches) for one in batch]
    return sorted(found, key=lambda one: one.question.row), said


def test_a_batch_too_large_for_memory_is_halved_once_and_for_all(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path, 11))[:10]
    roomy, silence = answered(questions, tmp_path, 5, None)
    assert not silence
    tight, said = answered(questions, tmp_path, 5, 2)
    assert said == ["out of memory with 5 questions at once; going on with 2"]
    assert [one.output for one in tight] == [one.output for one in roomy]
    assert not any(one.error for one in tight)


def test_a_question_too_large_even_alone_is_an_error_row(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path, 4))
    found, said = answered(questions, tmp_path, 2, 0)
    assert [bool(one.error) for one in found] == [True, True, True, False]
    assert "does not fit even alone" in found[0].error
    assert len(said) == 1


def test_neither_batch_size_nor_order_changes_an_answer(tmp_path: Path) -> None:
    questions = questions_in(write_world(tmp_path))
    one_by_one, _ = answered(questions, tmp_path, 1, None)
    together, _ = answered(questions, tmp_path, 8, None)
    assert [one.output for one in one_by_one] == [one.output for one in together]
    assert len({one.output for one in together}) > 3


def test_a_model_is_asked_in_the_template_that_it_was_taught(tmp_path: Path) -> None:
    questions = write_world(tmp_path / "world")
    model = tmp_path / "model"
    shutil.copytree(tiny_model_folder("qwen2.5-vl"), model)
    save_prompt_files(model, "think-answer")
    words = arguments("qwen2.5-vl", questions, tmp_path / "out")
    words[words.index("--model") + 1] = str(model)
    assert evaluate(*words, "--limit", "1") == EXIT_OK
    assert report_of(tmp_path / "out")["template"] == "think-answer"


def test_thinking_that_a_template_opens_and_the_model_never_ends_is_marked(tmp_path: Path) -> None:
    questions = write_world(tmp_path / "world")
    model = tmp_path / "model"
    shutil.copytree(tiny_model_folder("qwen2.5-vl"), model)
    processor = load_processor(model)
    processor.chat_template += "{{ '<think>\\n' }}"
    processor.save_pretrained(model)
    words = arguments("qwen2.5-vl", questions, tmp_path / "out")
    words[words.index("--model") + 1] = str(model)
    assert evaluate(*words, "--limit", "1") == EXIT_OK
    (output,) = outputs_of(tmp_path / "out").values()
    assert output.startswith("<think>")
