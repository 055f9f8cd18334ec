"""A model is read whole or refused by name: nothing is filled in, nothing that it brings is run."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from judges.backends.base import BackendUnavailableError
from judges.backends.local_model import LocalModel
from judges.backends.model_folders import (
    BrokenWeightsError,
    broken_file,
    not_finite,
    refuse_unfit_tensors,
)

Tensors = dict[str, torch.Tensor]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 12\n"


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def without_layer(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if "layers.1." not in name}


def wrapped(tensors: Tensors) -> Tensors:
    return {f"_orig_mod.{name}": value for name, value in tensors.items()}


def with_nan(tensors: Tensors) -> Tensors:
    tensors["model.norm.weight"][0] = math.nan
    return tensors


def quantised(tensors: Tensors) -> Tensors:
    return {name: (100 * value).to(torch.int8) for name, value in tensors.items()}


def with_an_older_name(tensors: Tensors) -> Tensors:
    return tensors | {"model.language_model.norm.weight": 3 * tensors["model.norm.weight"]}


def without_number_of_its_end(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')


def without_settings(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")


def wider(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-8])


def garbled(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["vocab"] = 3
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: rewritten(f, without_layer), r"lacks 9 tensors \(model\.layers\.1\."),
        (lambda f: rewritten(f, wrapped), r"lacks .* and holds .* \(_orig_mod\..*does not have"),
        (wider, r"holds 6 tensors \(.*down_proj.weight: \d+x\d+ instead of .* of another shape"),
        (lambda f: rewritten(f, with_nan), r"1 tensor \(model\.norm\.weight\) .* not finite"),
        (lambda f: rewritten(f, quantised), r"holds .* of whole numbers, which are quantised"),
        (lambda f: rewritten(f, with_an_older_name), r"norm\.weight in .* are the same tensor"),
        (without_number_of_its_end, r"its eos_token_id is '</s>', and numbers of tokens"),
        (without_settings, r"generation_config\.json holds no JSON object"),
        (cut, r"model\.safetensors has [\d,]+ bytes instead of [\d,]+"),
        (garbled, r"cannot be loaded: its tokenizer cannot be read: "),
    ],
    ids=[
        "a layer less",
        "compiled",
        "another size",
        "NaN",
        "quantised",
        "two names",
        "an end in words",
        "no settings",
        "cut",
        "tokenizer",
    ],
)
def test_a_judge_that_is_not_whole_is_refused_by_name(
    tiny_llama: Path, tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(tiny_llama, folder)
    change(folder)
    with pytest.raises(BackendUnavailableError, match=rf"^the model (in )?{folder} .*{sentence}"):
        LocalModel(folder, "cpu")


def test_a_whole_judge_with_tied_heads_is_read(tiny_llama: Path, tmp_path: Path) -> None:
    """A checkpoint with a tied head holds the embedding only."""
    folder = tmp_path / "judge"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    rewritten(folder, lambda all_: {n: v for n, v in all_.items() if n != "lm_head.weight"})
    model = LocalModel(folder, "cpu").model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(BackendUnavailableError, match=r"lacks 1 tensor \(lm_head\.weight\)"):
        LocalModel(folder, "cpu")


def test_a_tokenizers_template_stands_in_for_a_processors(tiny_qwen: Path, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(tiny_qwen, folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BackendUnavailableError, match="has no chat template"):
        LocalModel(folder, "cpu")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"chat_template": template})
    )
    assert LocalModel(folder, "cpu")._processor.chat_template == template


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder with a whole checkpoint of two shards."""
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        save_file({name: torch.ones(3)}, tmp_path / name)
    index = {"weight_map": {name: name for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_files_that_are_missing_or_pointers_are_named(sharded: Path) -> None:
    assert broken_file(sharded) == ""
    (sharded / "pytorch_model.bin").write_text(POINTER)  # nobody reads it
    (sharded / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "lost.bin"}}')
    assert broken_file(sharded) == ""
    (sharded / "tokenizer.json").write_text(POINTER)
    assert "tokenizer.json is a git-LFS pointer" in broken_file(sharded)
    (sharded / "tokenizer.json").unlink()
    last = sharded / "model-00002-of-00002.safetensors"
    whole = last.read_bytes()
    last.write_text(POINTER)
    assert f"{last.name} is a git-LFS pointer" in broken_file(sharded)
    last.unlink()
    assert "index.json names files that are not there: model-00002-of" in broken_file(sharded)
    for content, fault in (
        (b"", "is empty"),
        (whole[:20], "head is cut"),
        (whole[:8] + b"x" + whole[9:], "head is damaged"),
        (whole[:-1], f"has {len(whole) - 1} bytes instead of {len(whole)}"),
        (whole + b"1", f"has {len(whole) + 1} bytes instead of {len(whole)}"),
    ):
        last.write_bytes(content)
        assert fault in broken_file(sharded)
    last.write_bytes(whole)
    (sharded / "model.safetensors.index.json").write_text("{")
    assert "index.json cannot be read" in broken_file(sharded)
    save_file({"all": torch.ones(3)}, sharded / "model.safetensors")  # is read instead
    assert broken_file(sharded) == ""


def test_a_tensor_in_two_shards_is_refused_and_one_that_is_not_read_is_none(sharded: Path) -> None:
    (first, second) = sorted(sharded.glob("*.safetensors"))
    save_file({first.name: torch.zeros(3)}, sharded / "model.fp16.safetensors")  # is not read
    assert broken_file(sharded) == ""
    save_file({second.name: torch.ones(3), first.name: torch.zeros(3)}, second)
    assert f"{first.name} in {second.name} are the same tensor" in broken_file(sharded)


def test_numbers_that_are_not_finite_are_found_in_every_format() -> None:
    def tensors(kind: torch.dtype, *numbers: float) -> Any:
        return torch.tensor(numbers, dtype=torch.float64).to(kind)

    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for kind in kinds:
        largest = torch.finfo(kind).max
        given = {
            "good": tensors(kind, largest, -largest, 0.0),
            "nan": tensors(kind, 1.0, math.nan, 2.0),
            "inf": tensors(kind, 1.0, math.inf),
            "-inf": tensors(kind, -math.inf, 1.0),
            "none": torch.zeros(0, dtype=kind),
            "whole": torch.arange(3),
        }
        assert not_finite(given.items()) == ["nan", "inf", "-inf"]
    assert not_finite([]) == []


def test_what_fits_is_not_refused() -> None:
    refuse_unfit_tensors("m", missing=(), unexpected=())
    with pytest.raises(BrokenWeightsError, match=r"^the model m lacks 1 tensor \(a\); give all"):
        refuse_unfit_tensors("m", missing=["a"], unexpected=())
    with pytest.raises(BrokenWeightsError, match=r"holds 4 tensors \(a, b, c, \.\.\.\) that"):
        refuse_unfit_tensors("m", missing=(), unexpected=["d", "c", "b", "a"])
