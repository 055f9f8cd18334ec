"""Small random models with all that a real one has: Llama, Qwen2.5-VL, Qwen3-VL and Qwen3.5.

Tokenizer, chat template, processor and weights are made from a seed and saved as a folder that the
Auto classes load. Their output is meaningless but fast and deterministic: for tests, demos, and
training from scratch without a download.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cli.config import Config
from sandbox.models.tiny_tokenizer import CHAT_TEMPLATE, build_tokenizer, transformers_library

ModelFamily = Literal["llama", "qwen2.5-vl", "qwen3-vl", "qwen3.5"]


class ModelFamilyOptions(Config, renamed={"kind": "family"}, group="model"):
    """Which architecture a small model has."""

    family: ModelFamily = "llama"
    """Architecture: a text model (llama) or a video language model (the others)."""


@dataclass(frozen=True)
class TinySize:
    """Widths and depths.

    `weight_std` is larger than usual: with tied embeddings and 0.02 a random model only repeats its
    last token, with 0.1 its output depends on the prompt. `mlp_width` and `vision_mlp_width` are by
    default 4 times their `width`.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    mlp_width: int | None = None
    vision_width: int = 32
    vision_layers: int = 2
    vision_heads: int = 2
    vision_mlp_width: int | None = None
    max_positions: int = 32768
    weight_std: float = 0.1
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        if self.width % (8 * self.heads):
            raise ValueError(
                f"width ({self.width}) must be a multiple of 8 times the number of heads"
                f" ({self.heads}): rotary positions split each head in three"
            )


LEARNER_SIZE = TinySize(
    width=128,
    layers=3,
    heads=4,
    key_value_heads=4,
    mlp_width=384,
    vision_width=64,
    vision_layers=2,
    vision_heads=4,
    vision_mlp_width=192,
    # Narrow models learn with about 1 / sqrt(width), and places a few cells apart have to differ.
    weight_std=0.08,
    rope_theta=100.0,
)
"""A size of 1 M parameters that learns from random weights."""


def build_llama(tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> Any:
    """A random Llama for `tokenizer`."""
    transformers = transformers_library()
    size = size or TinySize()
    config = transformers.LlamaConfig(
        **_text_config(tokenizer, size),
        rope_parameters={"rope_type": "default", "rope_theta": size.rope_theta},
        tie_word_embeddings=True,
    )
    return _random_model(transformers.LlamaForCausalLM, config, tokenizer, seed)


def build_qwen2_5_vl(tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> Any:
    """A random Qwen2.5-VL for `tokenizer`."""
    transformers = transformers_library()
    size = size or TinySize()
    config = transformers.Qwen2_5_VLConfig(
        text_config={**_text_config(tokenizer, size), "rope_parameters": _rope_in_three(size)},
        vision_config={
            **_vision_config(size),
            "window_size": 112,
            "fullatt_block_indexes": [size.vision_layers - 1],
            "patch_size": 14,
            "tokens_per_second": 2,
        },
        **_shared_config(tokenizer, size),
    )
    return _random_model(transformers.Qwen2_5_VLForConditionalGeneration, config, tokenizer, seed)


def build_qwen3_vl(tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> Any:
    """A random Qwen3-VL for `tokenizer`; its last vision layer but one feeds the deepstack."""
    transformers = transformers_library()
    size = size or TinySize()
    config = transformers.Qwen3VLConfig(
        text_config={
            **_text_config(tokenizer, size),
            "head_dim": size.width // size.heads,
            "rope_parameters": {**_rope_in_three(size), "mrope_interleaved": True},
        },
        vision_config={
            **_vision_config(size),
            "deepstack_visual_indexes": [max(0, size.vision_layers - 2)],
            "patch_size": 16,
            "num_position_embeddings": 16 * 16,
        },
        **_shared_config(tokenizer, size),
    )
    return _random_model(transformers.Qwen3VLForConditionalGeneration, config, tokenizer, seed)


def build_qwen3_5(tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> Any:
    """A random Qwen3.5 for `tokenizer`: of four layers the last attends, as in released ones.

    With fewer layers the last of all does. Half of a head is rotated, not a quarter: there must be
    something of time, height and width.
    """
    transformers = transformers_library()
    size = size or TinySize()
    head, interval = max(16, size.width // size.heads), min(4, size.layers)
    pairs = head // 4
    sections = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    shared = _shared_config(tokenizer, size)
    del shared["initializer_range"]  # it is not of the whole here, but of text and vision
    config = transformers.Qwen3_5Config(
        text_config={
            **_text_config(tokenizer, size),
            "head_dim": head,
            "layer_types": [
                "linear_attention" if (number + 1) % interval else "full_attention"
                for number in range(size.layers)
            ],
            "linear_num_key_heads": size.key_value_heads,
            "linear_num_value_heads": size.heads,
            "linear_key_head_dim": head,
            "linear_value_head_dim": head,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": size.rope_theta,
                "partial_rotary_factor": 0.5,
                "mrope_section": sections,
                "mrope_interleaved": True,
            },
        },
        vision_config={
            **_vision_config(size),
            "patch_size": 16,
            "num_position_embeddings": 16 * 16,
        },
        **shared,
    )
    model = _random_model(transformers.Qwen3_5ForConditionalGeneration, config, tokenizer, seed)
    remember(model)
    return model


def remember(model: Any) -> None:
    """Let the gated delta nets of a random Qwen3.5 forget slowly: by e in 6 to 300 tokens.

    As transformers draws them most forget what they read within a token, and no video is seen.
    """
    import torch

    for layer in model.model.language_model.layers:
        if hasattr(layer, "linear_attn"):
            decay = layer.linear_attn.A_log.data
            decay.copy_(torch.linspace(-6, -2, len(decay)))


def build_processor(
    tokenizer: Any,
    *,
    family: ModelFamily = "qwen2.5-vl",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Any:
    """The processor of a video model; pictures are scaled to at most `max_pixels` (9 tokens).

    Qwen3-VL and Qwen3.5, which have one processor, cap a video's frames together: at `max_pixels`
    times 64 frames.
    """
    transformers = transformers_library()
    side = 28 if family == "qwen2.5-vl" else 32
    size = {
        "shortest_edge": min_pixels or side * side,
        "longest_edge": max_pixels or 9 * side * side,
    }
    if family == "qwen2.5-vl":
        return transformers.Qwen2_5_VLProcessor(
            image_processor=transformers.Qwen2VLImageProcessor(size=size),
            tokenizer=tokenizer,
            video_processor=transformers.Qwen2VLVideoProcessor(
                size=size, cap_pixels_per_frame=False
            ),
            chat_template=CHAT_TEMPLATE,
        )
    images = transformers.Qwen2VLImageProcessor(
        size=size, patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    frames = {"shortest_edge": 2 * side * side, "longest_edge": 64 * size["longest_edge"]}
    return transformers.Qwen3VLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(size=frames, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )


def _rope_in_three(size: TinySize) -> dict[str, Any]:
    """Rotary positions over time, height and width: a quarter of a head, the rest in halves."""
    pairs = size.width // size.heads // 2
    time_pairs = pairs // 4
    height_pairs = (pairs - time_pairs) // 2
    sections = [time_pairs, height_pairs, pairs - time_pairs - height_pairs]
    return {"rope_type": "default", "rope_theta": size.rope_theta, "mrope_section": sections}


def _vision_config(size: TinySize) -> dict[str, Any]:
    return {
        "depth": size.vision_layers,
        "hidden_size": size.vision_width,
        "intermediate_size": size.vision_mlp_width or 4 * size.vision_width,
        "num_heads": size.vision_heads,
        "initializer_range": size.weight_std,
        "out_hidden_size": size.width,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }


def _shared_config(tokenizer: Any, size: TinySize) -> dict[str, Any]:
    """Settings of video models beside those of text and vision."""
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }
    return {"tie_word_embeddings": True, "initializer_range": size.weight_std, **ids}


def _text_config(tokenizer: Any, size: TinySize) -> dict[str, Any]:
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": size.width,
        "intermediate_size": size.mlp_width or 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads,
        "max_position_embeddings": size.max_positions,
        "initializer_range": size.weight_std,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _random_model(model_class: Any, config: Any, tokenizer: Any, seed: int) -> Any:
    import torch

    transformers = transformers_library()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.pad_token_id,
    )
    return model.eval()


def save_tiny_model(
    family: ModelFamily,
    folder: Path,
    *,
    size: TinySize | None = None,
    tokenizer: Any | None = None,
    seed: int = 0,
) -> Path:
    """Build a model of `family` and save all its files into `folder`."""
    tokenizer = tokenizer or build_tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    build = {
        "llama": build_llama,
        "qwen2.5-vl": build_qwen2_5_vl,
        "qwen3-vl": build_qwen3_vl,
        "qwen3.5": build_qwen3_5,
    }
    processor = tokenizer if family == "llama" else build_processor(tokenizer, family=family)
    build[family](tokenizer, size, seed).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
