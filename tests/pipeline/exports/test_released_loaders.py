"""Exports as the trainers themselves load them, from their wheels: campaigns that need the network.

Each program loads an export of `trainer_questions` with the trainer's own code, decodes the media
as the trainer does, and prints what came of it. The rows by themselves are tested beside this file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.exports import trainer_ledger, trainer_questions, write_trainer_media
from helpers.released import (
    LLAMAFACTORY,
    QWEN_VL_UTILS,
    SWIFT,
    TORCHCODEC,
    VERL,
    VERL_NEEDS,
    ffmpeg_of_pyav,
    run_beside,
    unpacked,
)
from helpers.training_world import tiny_model_folder

from pipeline.exports.formats import export_further

pytestmark = [pytest.mark.campaign, pytest.mark.heavy, pytest.mark.timeout(900)]

FILES = ("p2r_video", "p2r_image", "p2r_mixed")
# Videos and images of the rows that LLaMA-Factory and ms-swift can express, in the files' order.
MEDIA = [
    (["a.mp4"], []),
    (["a.mp4", "b b.mp4"], []),
    ([], ["é.png"]),
    (["b b.mp4"], ["é.png", "z.png"]),
]
TARGETS = [
    f"<observation>{' '.join(['seen'] * (number + 1))}</observation> <think>thought {number} 0"
    f"</think><answer>{trainer_questions()[number].solution}</answer>"
    for number in range(4)
]


def exported(folder: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """The output folder of a build with these exports, and the folder of its media."""
    root = write_trainer_media(folder / "media")
    with trainer_ledger(folder / "out", media_root=str(root)) as ledger:
        export_further(ledger, folder / "out", names)
    return folder / "out", root


def said(packages: Path, program: str, repository: Path, *words: object, **environment: str) -> Any:
    """What the program prints in its last line."""
    head = f"import sys; sys.argv[1:] = {[str(word) for word in words]!r}\n"
    printed = run_beside(packages, head + program, repository, environment)
    return json.loads(printed.splitlines()[-1])


LLAMAFACTORY_PROGRAM = r"""
import importlib.machinery, json, types
audio = types.ModuleType("torchaudio")
audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = audio
from llamafactory.data import get_dataset
from llamafactory.data.template import get_template_and_fix_tokenizer
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import AutoProcessor, Seq2SeqTrainingArguments

folder, media, model, template, run = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model)
tokenizer = processor.tokenizer
models = ModelArguments(model_name_or_path=model, cache_dir=run)
for name in ("image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels",
             "video_fps", "video_maxlen"):
    setattr(processor, name, getattr(models, name))
data = DataArguments(template=template, dataset="p2r_video,p2r_image,p2r_mixed", dataset_dir=folder,
                     media_dir=media, cutoff_len=100_000, overwrite_cache=True)
template = get_template_and_fix_tokenizer(tokenizer, data)
settings = Seq2SeqTrainingArguments(output_dir=run, report_to=[])
rows = get_dataset(template, models, data, settings, stage="sft", tokenizer=tokenizer,
                   processor=processor)["train_dataset"]

def count(row, token):
    return row["input_ids"].count(tokenizer.convert_tokens_to_ids(token))

print(json.dumps([{
    "videos": row["videos"] or [],
    "images": row["images"] or [],
    "tokens": [count(row, "<|video_pad|>"), count(row, "<|image_pad|>")],
    "learned": tokenizer.decode([token for token in row["labels"] if token >= 0]),
} for row in rows]))
"""


@pytest.mark.parametrize(
    ("family", "template"), [("qwen2.5-vl", "qwen2_vl"), ("qwen3-vl", "qwen3_vl_nothink")]
)
def test_llamafactory_loads_and_encodes_it(
    tmp_path: Path, repository: Path, family: str, template: str
) -> None:
    """LLaMA-Factory 0.9.5: its loader, its templates, its decoding. 5 s at 2 frames a second are 5
    cells, the other clip's 4 s are 4; each cell, and each image, is 4 tokens.
    """
    out, root = exported(tmp_path, ["llamafactory"])
    packages = unpacked(tmp_path, LLAMAFACTORY)
    words = (out / "llamafactory", root, tiny_model_folder(family), template, tmp_path / "run")
    rows = said(packages, LLAMAFACTORY_PROGRAM, repository, *words, DISABLE_VERSION_CHECK="1")
    for row, (videos, images), target in zip(rows, MEDIA, TARGETS, strict=True):
        assert row["videos"] == [str(root / "clips" / name) for name in videos]
        assert row["images"] == [str(root / "stills" / name) for name in images]
        assert row["learned"] == target + "<|im_end|>\n"
        cells = sum({"a.mp4": 5, "b b.mp4": 4}[name] for name in videos)
        assert row["tokens"][1] == 4 * len(images)
        if family == "qwen2.5-vl":
            assert row["tokens"][0] == 4 * cells
        else:  # its own rule of frames
            assert row["tokens"][0] >= 16 * len(videos)


SWIFT_PROGRAM = r"""
import json
from swift import get_processor, get_template
from swift.dataset import load_dataset

model, kind, *files = sys.argv[1:]
settings = dict(split_dataset_ratio=0, num_proc=1, load_from_cache_file=False, strict=True,
                shuffle=False)
rows, _ = load_dataset(files, **settings)
for_grpo, _ = load_dataset(files, remove_unused_columns=False, **settings)
processor = get_processor(model, model_type=kind)
template = get_template(processor, template_type=kind)
template.set_mode("train")

def encoded(row):
    made = template.encode(dict(row))
    learned = [token for token in made["labels"] if token >= 0]
    return {
        "videos": row["videos"] or [],
        "images": [image["path"] for image in row["images"] or []],
        "cells": [int(grid[0]) for grid in made.get("video_grid_thw", [])],
        "stills": len(made.get("image_grid_thw", [])),
        "learned": processor.tokenizer.decode(learned),
    }

rewards = [{name: row[name] for name in ("question", "solution")} for row in for_grpo]
print(json.dumps({"rows": [encoded(row) for row in rows], "rewards": rewards,
                  "columns": [rows.column_names, for_grpo.column_names]}))
"""


@pytest.mark.parametrize(
    ("family", "kind"), [("qwen2.5-vl", "qwen2_5_vl"), ("qwen3-vl", "qwen3_vl")]
)
def test_ms_swift_loads_and_encodes_it(
    tmp_path: Path, repository: Path, family: str, kind: str
) -> None:
    """ms-swift 4.6.0: its loader (which drops bad rows, but not when strict), templates, decoding.

    Fine-tuning has the media and the trace; GRPO the question for our rewards, too.
    """
    out, root = exported(tmp_path, ["ms-swift"])
    packages = unpacked(tmp_path, (*SWIFT, *QWEN_VL_UTILS))
    files = [out / "ms-swift" / f"{name}.jsonl" for name in FILES]
    found = said(
        packages,
        SWIFT_PROGRAM,
        repository,
        tiny_model_folder(family),
        kind,
        *files,
        MODELSCOPE_CACHE=str(tmp_path / "cache"),
    )
    for row, (videos, images), target in zip(found["rows"], MEDIA, TARGETS, strict=True):
        assert row["videos"] == [str(root / "clips" / name) for name in videos]
        assert row["images"] == [str(root / "stills" / name) for name in images]
        assert row["cells"] == [{"a.mp4": 5, "b b.mp4": 4}[name] for name in videos]
        assert row["stills"] == len(images)
        assert row["learned"] == target + "<|im_end|>\n"
    tuning, grpo = found["columns"]
    assert "question" not in tuning
    assert {"question", "solution"} <= set(grpo)
    asked = trainer_questions()[:4]
    golds = [f"<answer>{question.solution}</answer>" for question in asked]
    assert [row["solution"] for row in found["rewards"]] == golds
    problems = [json.loads(row["question"])["problem"] for row in found["rewards"]]
    assert problems == [question.problem for question in asked]


VERL_PROGRAM = r"""
import asyncio, json
from omegaconf import OmegaConf
from transformers import AutoProcessor
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

file, model, cache = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model)
config = OmegaConf.create({"max_prompt_length": 100_000, "filter_overlong_prompts_workers": 1,
                           "cache_dir": cache})
rows = RLHFDataset(file, processor.tokenizer, config, processor)

def seen(row):
    prompt = row["raw_prompt"]
    images, videos = asyncio.run(RLHFDataset.process_vision_info(prompt, 14, config))
    return {
        "parts": [part["type"] for part in prompt[0]["content"]],
        "images": len(images or []),
        "frames": [[int(n) for n in made["frames_indices"]] for _, made in videos or []],
        "gold": row["reward_model"]["ground_truth"],
        "question": row["extra_info"]["question"],
    }

found = [seen(row) for row in rows]
print(json.dumps({"rows": found, "batch": sorted(collate_fn([rows[0], rows[2]]))}))
"""


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_verl_loads_it_and_decodes_whole_files_and_clips(
    tmp_path: Path, repository: Path, family: str
) -> None:
    """verl 0.9.1: its dataset class, which decodes every row to measure its prompt and drops those
    that fail, and its `process_vision_info`. The clip is seconds 1 to 3 of a file with 4 frames a
    second; Qwen's reader takes the frame at its end, too.
    """
    out, _ = exported(tmp_path, ["verl"])
    packages = unpacked(tmp_path, (*VERL, *VERL_NEEDS, *QWEN_VL_UTILS))
    file = out / "verl" / "train-00000-of-00001.parquet"
    model = tiny_model_folder(family)
    found = said(packages, VERL_PROGRAM, repository, file, model, tmp_path / "cache")
    rows = found["rows"]
    assert [row["parts"] for row in rows] == [
        ["video", "text"],
        ["video", "video", "text"],
        ["image", "text"],
        ["image", "video", "image", "text"],
        ["video", "text"],
    ]
    first, other, clip = [0, 6, 13, 19], [0, 2, 5, 7], [4, 7, 9, 12]
    assert [row["frames"] for row in rows] == [[first], [first, other], [], [other], [clip]]
    assert [row["images"] for row in rows] == [0, 0, 1, 2, 0]
    asked = trainer_questions()[:5]
    assert [row["gold"] for row in rows] == [question.solution for question in asked]
    problems = [json.loads(row["question"])["problem"] for row in rows]
    assert problems == [question.problem for question in asked]
    assert {"raw_prompt", "reward_model", "extra_info", "data_source"} <= set(found["batch"])


VIDEO_PROGRAM = r"""
import json
from datasets import load_dataset

found = []
for folder in sys.argv[2:]:
    rows = load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train",
                        cache_dir=sys.argv[1])
    for row in rows:
        video = row["video"]
        shape = list(video.get_frames_at([0, video.metadata.num_frames - 1]).data.shape)
        found.append([video.metadata.num_frames, video.metadata.path, shape, row["observation"]])
print(json.dumps(found))
"""


def test_datasets_decodes_the_video_column(tmp_path: Path, repository: Path) -> None:
    """`datasets` with its decoder, torchcodec 0.13.0, and PyAV's FFmpeg."""
    out, root = exported(tmp_path, ["hf-video", "hf-video-embedded"])
    packages = unpacked(tmp_path, TORCHCODEC)
    folders = (out / "hf-video", out / "hf-video-embedded")
    libraries = ffmpeg_of_pyav(tmp_path / "ffmpeg")
    found = said(
        packages,
        VIDEO_PROGRAM,
        repository,
        tmp_path / "cache",
        *folders,
        LD_LIBRARY_PATH=libraries,
    )
    seen = [" ".join(["seen"] * count) for count in (1, 6, 7)]
    expected = [
        [20, path, [2, 3, 56, 56], text]
        for path in (str(root / "clips/a.mp4"), "a.mp4")
        for text in seen
    ]
    assert found == expected
