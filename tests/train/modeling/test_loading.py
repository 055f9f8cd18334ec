"""Models, adapters and processors are read whole, and no code that lies beside them is run."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import build_model
from helpers.training_world import tiny_model_folder
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from cli.config import UsageError
from train.modeling.families import QWEN2_5_VL, family_of
from train.modeling.loading import load_policy, load_processor, load_weights, training_dtype
from train.modeling.lora import lora_config

Tensors = dict[str, torch.Tensor]
EVIL = "open({mark!r}, 'w').close()\nfrom transformers import *\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a tiny model."""
    return Path(shutil.copytree(tiny_model_folder("qwen2.5-vl"), tmp_path / "model"))


def rewritten(file: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def changed_json(file: Path, **values: Any) -> None:
    settings = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(settings | values))


def test_a_vision_tower_that_is_not_there_is_not_made_up(folder: Path) -> None:
    """Without the refusal its blocks are random numbers, and everything ends with status 0."""
    rewritten(
        folder / "model.safetensors",
        lambda all_: {n: v for n, v in all_.items() if "visual.blocks.1" not in n},
    )
    with pytest.raises(
        UsageError, match=rf"^the model {folder} lacks 12 tensors \(model\.visual\.blocks\.1\."
    ):
        load_policy(folder)


def test_a_frozen_tensor_with_nan_is_refused(folder: Path) -> None:
    def spoiled(tensors: Tensors) -> Tensors:
        name = next(name for name in tensors if "visual" in name)
        tensors[name].view(-1)[0] = math.nan
        return tensors

    rewritten(folder / "model.safetensors", spoiled)
    with pytest.raises(UsageError, match=r"1 tensor \(model\.visual\..* not finite"):
        load_policy(folder)


def test_a_checkpoint_of_another_model_is_not_gone_on_from(folder: Path) -> None:
    model = load_policy(tiny_model_folder("qwen2.5-vl"), device="cpu")
    rewritten(
        folder / "model.safetensors",
        lambda all_: {n: v for n, v in all_.items() if "embed_tokens" not in n},
    )
    with pytest.raises(UsageError, match=r"lacks \d tensors? \(.*embed_tokens"):
        load_weights(model, folder)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}),
        (
            "processor_config.json",
            {"processor_class": "Evil", "auto_map": {"AutoProcessor": "evil.Evil"}},
        ),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
        ),
    ],
    ids=["configuration", "processor", "tokenizer"],
)
def test_code_beside_a_model_is_never_run_and_never_asked_about(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    settings: dict[str, Any],
) -> None:
    """On a terminal transformers asks whether to run it; here somebody answers yes."""
    (folder / "evil.py").write_text(EVIL.format(mark=str(tmp_path / "ran")))
    changed_json(folder / file, **settings)

    class Yes:
        def readline(self, *_: int) -> str:
            raise AssertionError("somebody was asked")

    monkeypatch.setattr(sys, "stdin", Yes())
    for load in (load_processor, load_policy):
        with suppress(UsageError):  # where it cannot do without that code
            load(folder)
    assert not (tmp_path / "ran").exists()
    assert "Do you wish" not in capsys.readouterr().out


def test_the_tokenizers_template_is_taken_where_the_processor_has_none(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match="has no chat template, neither its processor nor its"):
        load_processor(folder)
    changed_json(folder / "tokenizer_config.json", chat_template=template)
    assert load_processor(folder).chat_template == template


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder with a LoRA adapter of the tiny model."""
    base = tiny_model_folder("qwen2.5-vl")
    adapted = get_peft_model(load_policy(base, device="cpu"), lora_config(2, QWEN2_5_VL))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_an_adapter_is_merged_only_where_it_is_whole(adapter: Path) -> None:
    """peft keeps a missing tensor as a fresh adapter has it: without effect, or random."""
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    assert load_policy(adapter, device="cpu")
    rewritten(weights, lambda all_: {n: v for n, v in all_.items() if "layers.1." not in n})
    with pytest.raises(UsageError, match=rf"^the model {adapter} lacks 14 tensors \(.*layers\.1\."):
        load_policy(adapter)
    weights.write_bytes(whole)
    rewritten(weights, lambda all_: all_ | {"base_model.model.other": torch.ones(2)})
    with pytest.raises(UsageError, match=r"holds 1 tensor \(base_model\.model\.other\) that"):
        load_policy(adapter)
    weights.write_bytes(whole[:-4])
    with pytest.raises(UsageError, match=r"adapter_model\.safetensors has .* bytes instead of"):
        load_policy(adapter)
    weights.write_bytes(whole)
    rewritten(weights, lambda all_: {n: v[..., :-1].contiguous() for n, v in all_.items()})
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_policy(adapter)
    weights.unlink()
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_policy(adapter)


def test_a_folder_with_a_model_and_an_adapter_is_ambiguous(adapter: Path, folder: Path) -> None:
    for file in adapter.iterdir():
        shutil.copy(file, folder)
    with pytest.raises(UsageError, match="holds a whole model and an adapter"):
        load_policy(folder)
    (folder / "model.safetensors").unlink()
    assert load_policy(folder, device="cpu")  # its base has the weights
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(UsageError, match="does not say which model the adapter belongs to"):
        load_policy(folder)


@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize("has_adapter", [True, False])
def test_only_what_is_frozen_under_an_adapter_on_a_gpu_is_narrow(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, has_adapter: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    expected = "bfloat16" if has_gpu and has_adapter else "float32"
    assert training_dtype("auto", has_adapter=has_adapter) == expected
    assert training_dtype("float32", has_adapter=has_adapter) == "float32"


def test_adapters_are_float32_whatever_the_base_is() -> None:
    model = build_model("qwen2.5-vl").to(torch.bfloat16)
    adapted = get_peft_model(model, lora_config(4, family_of(model.config)))
    formats = {p.requires_grad: p.dtype for p in adapted.parameters()}
    assert formats == {True: torch.float32, False: torch.bfloat16}


def test_heads_for_several_tokens_ahead_are_passed_over(tmp_path: Path) -> None:
    """Released files of Qwen3.5 hold `mtp` tensors, which transformers' model does not have."""
    folder = Path(shutil.copytree(tiny_model_folder("qwen3.5"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["mtp.fc.weight"] = torch.ones(2, 2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    names = load_policy(folder, device="cpu").state_dict()
    assert not [name for name in names if "mtp" in name]
