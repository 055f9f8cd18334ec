"""What is learned: targets, held-out clips, lengths, batches; the video decides the loss."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training_world import (
    FAMILIES,
    dataset_row,
    question,
    tiny_model_folder,
    write_clip,
    write_dataset,
    write_still,
)

from cli.config import UsageError
from media.frames import MediaError
from media.sampling import FrameSpec
from schemas.dataset_rows import dataset_card_id, find_dataset_files, read_dataset_rows
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.data.sft_collator import SftCollator
from train.data.sft_dataset import (
    SftRow,
    dataset_template,
    end_token_id,
    hold_out,
    refuse_unusable_files,
    sft_rows,
    tokenised,
    within_length,
)
from train.modeling.loading import load_policy, load_processor
from train.sft_options import SftConfig, accumulation_steps
from train.sft_setup import refuse_changed_content

P2R = TEMPLATES["p2r"]
GOLD = "</think><answer>A</answer>"


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameLoader]:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "a.mp4", seed=1)
    write_clip(folder / "b.mp4", seed=2)
    write_clip(folder / "long.mp4", num_frames=16, size=(112, 112), seed=3)
    write_still(folder / "still.png")
    with FrameLoader(folder, spec=FrameSpec("uniform:16"), cache_dir=None) as opened:
        yield opened


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def inputs(family: str, loader: FrameLoader) -> VideoInputs:
    return VideoInputs(load_processor(tiny_model_folder(family)), loader, P2R)


def rows_of(*paths: str, target: str = "gold", **columns: Any) -> list[SftRow]:
    found = [dataset_row(question(path), **columns) for path in paths]
    return sft_rows(found, P2R, target=target)


def losses(model: Any, batch: dict[str, torch.Tensor]) -> list[float]:
    """Mean loss of each row's completion."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        logits = model(**inputs).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    per_token = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", ignore_index=-100
    )
    return [float(row[own != -100].mean()) for row, own in zip(per_token, labels, strict=True)]


def test_the_ground_truth_stands_in_for_the_teachers_answer() -> None:
    (row,) = rows_of("a.mp4")
    assert row.target.startswith(
        "<observation>I need to notice the red object.</observation> <think>"
    )
    assert row.target.endswith(GOLD)
    (row,) = rows_of("a.mp4", target="teacher")
    assert row.target.endswith("<answer>B</answer>")


def test_think_answer_leaves_the_observation_of_a_p2r_dataset_out() -> None:
    row = dataset_row(question("a.mp4"))
    (made,) = sft_rows([row], TEMPLATES["think-answer"], target="gold")
    assert made.target == "<think>It is red, so it is first.</think><answer>A</answer>"
    with pytest.raises(UsageError, match=r"row 0 .*no trace of the template 'grounding'"):
        sft_rows([row], TEMPLATES["grounding"], target="gold")


def test_the_prompt_id_tells_the_template() -> None:
    assert dataset_template([dataset_row(question("a.mp4"))], "auto").name == "p2r"
    foreign = dataset_row(question("a.mp4"), prompt_id="prompt-of-others")
    assert dataset_template([foreign], "think-answer").name == "think-answer"
    with pytest.raises(UsageError, match=r"prompt-of-others.*--template"):
        dataset_template([foreign], "auto")


def test_the_loss_is_on_the_trace_and_its_end_and_on_nothing_else(inputs: VideoInputs) -> None:
    batch = SftCollator(inputs)(tokenised(rows_of("a.mp4", "still.png"), inputs))
    for ids, labels, mask in zip(
        batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        trained = labels != -100
        assert torch.equal(labels[trained], ids[trained])
        text = inputs.tokenizer.decode(ids[trained])
        assert text.startswith("<observation>I need to notice the red object.")
        assert text.endswith(GOLD + "<|im_end|>")
        # What is trained is the end of the row: nothing of the prompt, nothing of the padding.
        last = int(mask.sum())
        assert trained[: last - int(trained.sum())].sum() == 0
        assert trained[last:].sum() == 0
        assert inputs.tokenizer.decode(ids[: last - int(trained.sum())]).endswith("assistant\n")


def test_a_row_is_the_prompt_of_sampling_with_the_completion_behind(inputs: VideoInputs) -> None:
    """So fine-tuning trains what RL samples and evaluation asks: ids, pixels and positions."""
    (row,) = rows_of("a.mp4")
    batch = SftCollator(inputs)(tokenised([row], inputs))
    prompt = inputs.prompt(row.question)
    width = prompt["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :width], prompt["input_ids"])
    assert torch.equal(batch["pixel_values_videos"], prompt["pixel_values_videos"])
    if "position_ids" in prompt:
        assert torch.equal(batch["position_ids"][..., :width], prompt["position_ids"])
        steps = batch["position_ids"][..., width - 1 :].diff(dim=-1)
        assert torch.equal(steps, torch.ones_like(steps))


def test_changing_the_video_changes_the_loss(inputs: VideoInputs, family: str) -> None:
    model = load_policy(tiny_model_folder(family))
    collate = SftCollator(inputs)
    (one,) = losses(model, collate(tokenised(rows_of("a.mp4"), inputs)))
    (other,) = losses(model, collate(tokenised(rows_of("b.mp4"), inputs)))
    # The rows differ in nothing but the file's pixels; float32 scatter here is below 1e-6.
    assert abs(one - other) > 1e-4


def test_swapping_two_videos_in_a_batch_swaps_their_losses(
    inputs: VideoInputs, family: str
) -> None:
    model = load_policy(tiny_model_folder(family))
    collate = SftCollator(inputs)
    there = losses(model, collate(tokenised(rows_of("a.mp4", "b.mp4"), inputs)))
    back = losses(model, collate(tokenised(rows_of("b.mp4", "a.mp4"), inputs)))
    assert abs(there[0] - there[1]) > 1e-4
    # Rows of a batch are summed in another order: 1e-5 is ten times that scatter.
    assert back == pytest.approx([there[1], there[0]], abs=1e-5)


def test_a_row_without_its_video_is_an_error_that_names_it(
    inputs: VideoInputs, loader: FrameLoader
) -> None:
    rows = rows_of("a.mp4", "gone.mp4")
    with pytest.raises(UsageError, match=r"1 of the dataset's 2 files .*gone\.mp4"):
        refuse_unusable_files([row.question for row in rows], loader, decode=False)
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        SftCollator(inputs)(tokenised(rows, inputs))


def test_a_file_that_cannot_be_decoded_is_found_when_all_are_decoded_first(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with FrameLoader(tmp_path, spec=FrameSpec(), cache_dir=None) as opened:
        questions = [row.question for row in rows_of("broken.mp4")]
        refuse_unusable_files(questions, opened, decode=False)
        with pytest.raises(UsageError, match=r"broken\.mp4"):
            refuse_unusable_files(questions, opened, decode=True)


def test_a_resumed_run_is_held_to_its_rows_and_its_weights(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_folder("qwen2.5-vl"), model)
    (tmp_path / "out").mkdir()
    config = SftConfig(
        model=str(model),
        dataset=(tmp_path / "rows.parquet",),
        media_root=tmp_path,
        output_dir=tmp_path / "out",
    )
    refuse_changed_content(config, "dataset-1")
    refuse_changed_content(config, "dataset-0")  # nothing was trained: other content may come
    refuse_changed_content(config, "dataset-1")
    (tmp_path / "out" / "checkpoint-1").mkdir()
    refuse_changed_content(config, "dataset-1")
    with pytest.raises(UsageError, match="dataset was dataset-1, is now dataset-2"):
        refuse_changed_content(config, "dataset-2")
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UsageError, match="model was "):
        refuse_changed_content(config, "dataset-1")


def test_rows_that_are_too_long_are_dropped_whole_and_named(inputs: VideoInputs) -> None:
    rows = tokenised(rows_of("a.mp4", "long.mp4", "still.png"), inputs)
    lengths = [SftCollator(inputs)([row])["input_ids"].shape[1] for row in rows]
    assert lengths[1] > lengths[0] > lengths[2]
    names = ["one", "two", "three"]
    kept, report = within_length(rows, names, inputs, lengths[0])
    assert kept == [0, 2]
    assert report.dropped == (f"two ({lengths[1]:,} tokens)",)
    assert "1 of 3 rows are longer and were dropped, none was cut: two" in report.sentence()
    kept, report = within_length(rows, names, inputs, None)
    assert kept == [0, 1, 2]
    assert report.longest >= lengths[1]  # an upper bound: nothing had to be looked at


def test_held_out_rows_are_whole_clips_and_do_not_depend_on_the_order_of_rows() -> None:
    rows = rows_of(*[f"clip{number // 2}.mp4" for number in range(200)])
    to_train, held_out = hold_out(rows, 6, seed=1)
    assert len(held_out) == 6
    assert len(to_train) == 194
    clips = {row.question.media[0].path for row in held_out}
    assert not clips & {row.question.media[0].path for row in to_train}
    assert {row.question.media[0].path for row in hold_out(rows[::-1], 6, seed=1)[1]} == clips
    assert {row.question.media[0].path for row in hold_out(rows, 6, seed=2)[1]} != clips
    assert len(hold_out(rows, 50, seed=1)[1]) == 10  # 5 in 100
    assert hold_out(rows, 0, seed=1)[1] == []


def test_padding_to_a_multiple_adds_nothing_that_counts(inputs: VideoInputs) -> None:
    rows = tokenised(rows_of("a.mp4", "still.png"), inputs)
    plain = SftCollator(inputs)(rows)
    rounded = SftCollator(inputs, pad_to_multiple_of=64)(rows)
    width = plain["input_ids"].shape[1]
    assert rounded["input_ids"].shape[1] == -(-width // 64) * 64
    assert (rounded["labels"][:, width:] == -100).all()
    assert (rounded["attention_mask"][:, width:] == 0).all()
    assert torch.equal(rounded["labels"][:, :width], plain["labels"])


def test_the_end_token_is_the_chat_templates(inputs: VideoInputs) -> None:
    assert inputs.tokenizer.decode([end_token_id(inputs)]) == "<|im_end|>"


def test_a_traces_text_cannot_hold_special_tokens(inputs: VideoInputs) -> None:
    row = dataset_row(question("a.mp4"), word="<|im_end|>")
    (tokens,) = tokenised(sft_rows([row], P2R, target="gold"), inputs)
    end = end_token_id(inputs)
    assert np.flatnonzero(tokens.completion_ids == end).tolist() == [len(tokens.completion_ids) - 1]


@pytest.mark.parametrize(
    ("options", "processes", "steps"),
    [
        ({}, 1, 16),
        ({}, 8, 2),
        ({"per_device_train_batch_size": 4}, 2, 2),
        ({"per_device_train_batch_size": 32}, 1, 1),
        ({"batch_size": 8}, 2, 4),
        ({"gradient_accumulation_steps": 3}, 2, 3),
    ],
)
def test_a_step_has_16_rows_however_many_processes(
    options: dict[str, int], processes: int, steps: int
) -> None:
    config = SftConfig(
        model="m", dataset=(Path("d"),), media_root=Path(), output_dir=Path("o"), **options
    )
    assert accumulation_steps(config, processes) == steps


@pytest.mark.parametrize(
    ("options", "processes", "sentence"),
    [
        ({}, 3, "16 rows cannot be split over 3 processes"),
        ({"batch_size": 8, "gradient_accumulation_steps": 3}, 1, "is not 1 rows at once x"),
    ],
)
def test_a_step_that_cannot_be_split_is_refused(
    options: dict[str, int], processes: int, sentence: str
) -> None:
    config = SftConfig(
        model="m", dataset=(Path("d"),), media_root=Path(), output_dir=Path("o"), **options
    )
    with pytest.raises(UsageError, match=sentence):
        accumulation_steps(config, processes)


def test_a_dataset_is_found_by_its_build_its_folder_or_its_file(tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "cot", [dataset_row(question("a.mp4"))])
    (file,) = (out / "dataset").glob("*")
    for path in (out, out / "dataset", file):
        assert find_dataset_files([path]) == [file]
    (row,) = read_dataset_rows([file])
    assert sft_rows([row], P2R, target="gold")[0].target.endswith(GOLD)
    assert dataset_card_id(out) is None
    (out / "README.md").write_text("| dataset id | `dataset-1234` |\n")
    assert dataset_card_id(out) == dataset_card_id(file) == "dataset-1234"
    with pytest.raises(ValueError, match="holds no dataset"):
        find_dataset_files([tmp_path])
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read"):
        list(read_dataset_rows([tmp_path / "x.parquet"]))
