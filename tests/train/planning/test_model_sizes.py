"""Released sizes are counted from their configurations, adapters as peft makes them."""

from pathlib import Path

import pytest
import transformers
from helpers.measured_passes import Setting
from peft import get_peft_model

from cli.config import UsageError
from train.modeling.families import family_of
from train.modeling.lora import lora_config
from train.planning.model_sizes import model_sizes, sizes_of

# The tensors' sizes in the released model.safetensors.index.json ("total_size"), 2 bytes each.
RELEASED = {
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen2.5-vl-32b": 33_452_718_336,
    "qwen3-vl-8b": 8_767_123_696,
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name: str, repository: Path) -> None:
    """config.json is the only file of the folder."""
    folder = repository / "tests" / "reference" / "configurations" / name
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert model_sizes(folder).num_weights == RELEASED[name]


def test_the_parts_of_a_released_size(repository: Path) -> None:
    """Qwen2.5-VL-7B, by hand: 28 layers of 3584 (4 of 28 heads are keys'), MLPs of 18944, two
    times 152064 words, untied."""
    folder = repository / "tests" / "reference" / "configurations" / "qwen2.5-vl-7b"
    sizes = model_sizes(folder)
    width, keys, mlp = 3584, 4 * 128, 18944
    attention = width * (2 * width + 2 * keys) + width + 2 * keys
    assert sizes.num_layer == attention + 3 * width * mlp + 2 * width
    assert sizes.num_embedding == sizes.num_head == 152064 * width
    assert sizes.num_text == 28 * sizes.num_layer + 2 * sizes.num_head + width
    assert sizes.num_linear == 28 * (sizes.num_layer - 2 * width) + sizes.num_head
    assert (sizes.text.heads, sizes.text.kv_heads, sizes.text.head_width) == (28, 4, 128)
    assert (sizes.tower.patch_values, sizes.tower.num_mergers) == (3 * 2 * 14 * 14, 1)


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl", "qwen3.5"])
@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj"), ("qkv",)])
def test_an_adapter_is_counted_as_peft_makes_it(family: str, targets: tuple[str, ...]) -> None:
    """Without targets: the language model's linear layers, none of the tower."""
    model = Setting(family).model()
    sizes = sizes_of(model, lora_targets=targets)
    adapted = get_peft_model(model, lora_config(5, family_of(model.config), targets=targets))
    numbers = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert 5 * sizes.lora_widths == numbers > 0


def test_the_parts_of_qwen3_5(tmp_path: Path) -> None:
    """transformers' defaults, which are the text model of Qwen3.5-9B, by hand: of 32 layers of 4096
    every fourth attends, with 16 heads of 256 and as wide a gate, on 4 of keys; the others are
    delta nets of 16 heads of keys and 32 of values, 128 wide. 248320 words twice."""
    config = transformers.Qwen3_5Config(vision_config={"out_hidden_size": 4096})
    config.save_pretrained(tmp_path)
    sizes = model_sizes(tmp_path)
    width, keys, values = 4096, 16 * 128, 32 * 128
    around = 3 * width * 12288 + 2 * width
    attention = width * 256 * (2 * 16 + 2 * 4) + 16 * 256 * width + 2 * 256
    delta = width * (2 * keys + 2 * values + 2 * 32) + values * width
    delta += 4 * (2 * keys + values) + 2 * 32 + 128  # convolution, decay, norm
    layers = 32 * around + 8 * attention + 24 * delta
    assert sizes.num_text == layers + 2 * 248320 * width + width == 8_953_803_264
    assert sizes.num_layer == layers // 32
    recurrent = sizes.text.recurrent
    assert recurrent is not None
    assert (sizes.text.attending, recurrent.layers) == (8, 24)
    # 32 matrices of 128 x 128, and four tokens of queries, keys and values
    assert recurrent.state == 32 * 128 * 128 + 4 * (2 * keys + values)


def test_tied_heads_are_counted_once() -> None:
    tied, untied = (Setting("qwen3-vl", tied=tied).sizes() for tied in (True, False))
    assert tied.num_head == 0
    assert untied.num_weights - tied.num_weights == untied.num_head == untied.num_embedding


def test_a_folder_without_a_configuration_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be loaded"):
        model_sizes(tmp_path)
