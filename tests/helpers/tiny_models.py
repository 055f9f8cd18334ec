"""Tiny random models of every family, and prompts with random frames for them, without files."""

from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

from sandbox.models.tiny_models import remember
from train.modeling.packed_forward import PromptGroup
from train.modeling.prompt_tensors import joined_media

IMAGE, VIDEO, START, END, WORDS = 1, 2, 3, 4, 10
VOCABULARY = 160
FAMILIES = ("qwen2.5-vl", "qwen3-vl", "qwen3.5")


@cache
def tiny_model(family: str) -> Any:
    """Some 100,000 weights, 3 layers, 4 heads on 2 key-value heads. Shared: do not change it."""
    return build_model(family)


def build_model(
    family: str,
    *,
    layers: int = 3,
    width: int = 64,
    mlp_width: int = 96,
    heads: int = 4,
    kv_heads: int = 2,
    vocabulary: int = VOCABULARY,
    vision_width: int = 32,
    vision_layers: int = 2,
    vision_mlp_width: int | None = None,
    vision_heads: int = 2,
    tied: bool = True,
    weight_std: float = 0.15,
    attention_dropout: float = 0.0,
) -> Any:
    """A random model in evaluation mode that attends with SDPA.

    Of Qwen3.5 every second layer attends, the last one included; the others are gated delta nets.
    """
    pairs = width // heads // 2
    sections = [pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": mlp_width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 4096,
        "initializer_range": weight_std,
        "attention_dropout": attention_dropout,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {
        "depth": vision_layers,
        "hidden_size": vision_width,
        "intermediate_size": vision_mlp_width or 2 * vision_width,
        "num_heads": vision_heads,
        "out_hidden_size": width,
        "initializer_range": weight_std,
    }
    common = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
        "tie_word_embeddings": tied,
        "initializer_range": weight_std,
    }
    full = list(range(max(vision_layers // 4, 2) - 1, vision_layers, max(vision_layers // 4, 2)))
    config: Any
    if family == "qwen2.5-vl":
        config = transformers.Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": rope},
            vision_config={**vision, "window_size": 112, "fullatt_block_indexes": full},
            **common,
        )
        model_class: Any = transformers.Qwen2_5_VLForConditionalGeneration
    elif family == "qwen3.5":
        kinds = ("full_attention", "linear_attention")
        rope |= {
            "mrope_interleaved": True,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
        }
        config = transformers.Qwen3_5Config(
            text_config={
                **text,
                "head_dim": width // heads,
                "rope_parameters": {**rope, "partial_rotary_factor": 0.5},
                "layer_types": [kinds[n % 2] for n in reversed(range(layers))],
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_key_head_dim": width // heads,
                "linear_value_head_dim": width // heads,
            },
            vision_config={**vision, "num_position_embeddings": 64},
            **{name: value for name, value in common.items() if name != "initializer_range"},
        )
        model_class = transformers.Qwen3_5ForConditionalGeneration
    else:
        rope |= {"mrope_interleaved": True}
        config = transformers.Qwen3VLConfig(
            text_config={**text, "head_dim": width // heads, "rope_parameters": rope},
            vision_config={
                **vision,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
            **common,
        )
        model_class = transformers.Qwen3VLForConditionalGeneration
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class._from_config(config, attn_implementation="sdpa").eval()
    if family == "qwen3.5":
        remember(model)
    return model


def prompt(
    family: str,
    seed: int,
    *,
    videos: tuple[tuple[int, int, int], ...] = ((3, 4, 4),),
    image: tuple[int, int, int] | None = None,
    words: int = 7,
) -> dict[str, Tensor]:
    """Inputs of one prompt: text, videos by their patch grids, an image, text."""
    draw = torch.Generator().manual_seed(seed)

    def text(count: int) -> list[int]:
        return torch.randint(WORDS, VOCABULARY, (count,), generator=draw).tolist()

    def pixels(grids: tuple[tuple[int, int, int], ...]) -> Tensor:
        width = 3 * 2 * (14 if family == "qwen2.5-vl" else 16) ** 2
        return torch.randn(int(torch.tensor(grids).prod(1).sum()), width, generator=draw)

    ids = text(3)
    for cells, height, width in videos:
        size = height * width // 4
        if family == "qwen2.5-vl":
            ids += [START, *[VIDEO] * (cells * size), END]
        else:
            for _ in range(cells):
                ids += [*text(2), START, *[VIDEO] * size, END]
        ids += text(1)
    if image:
        ids += [START, *[IMAGE] * (image[1] * image[2] // 4), END]
    ids += text(words)
    input_ids = torch.tensor([ids])
    inputs = {
        "input_ids": input_ids,
        "mm_token_type_ids": (input_ids == IMAGE).long() + 2 * (input_ids == VIDEO).long(),
    }
    if videos:
        inputs |= {"video_grid_thw": torch.tensor(videos), "pixel_values_videos": pixels(videos)}
        if family == "qwen2.5-vl":
            inputs["second_per_grid_ts"] = torch.full((len(videos),), 2.0)
    if image:
        inputs |= {"image_grid_thw": torch.tensor([image]), "pixel_values": pixels((image,))}
    return inputs


def group(family: str, seed: int, lengths: tuple[int, ...], **options: Any) -> PromptGroup:
    """A prompt and ragged random completions."""
    draw = torch.Generator().manual_seed(1000 + seed)
    completions = [torch.randint(WORDS, VOCABULARY, (n,), generator=draw) for n in lengths]
    return PromptGroup(prompt(family, seed, **options), completions)


def batch_of(
    groups: list[PromptGroup], *, pad: int = 0, align_prompts: bool = True
) -> tuple[dict[str, Tensor], Tensor]:
    """The first completion of each group behind its prompt, as one padded batch.

    With aligned prompts these are padded on the left and all completions begin in one column;
    otherwise rows begin in the first column. -> (inputs, column of each row's first token).
    """
    prompts = [group.inputs["input_ids"][0] for group in groups]
    widest = max(len(ids) for ids in prompts)
    before = [widest - len(ids) if align_prompts else 0 for ids in prompts]
    rows = [
        torch.cat([torch.full((space,), pad), ids, group.completions[0]])
        for space, ids, group in zip(before, prompts, groups, strict=True)
    ]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = torch.zeros_like(input_ids)
    for row, (space, ids) in enumerate(zip(before, rows, strict=True)):
        mask[row, space : len(ids)] = 1
    inputs = {
        "input_ids": input_ids,
        "attention_mask": mask,
        "mm_token_type_ids": (input_ids == IMAGE).long() + 2 * (input_ids == VIDEO).long(),
        **joined_media([group.inputs for group in groups]),
    }
    firsts = [space + len(ids) for space, ids in zip(before, prompts, strict=True)]
    return inputs, torch.tensor(firsts)
