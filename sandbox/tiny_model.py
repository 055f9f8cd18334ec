"""Small random models with everything a real one has: a Llama and a Qwen2.5-VL, built from nothing.

Tokenizer, chat template, processor and weights are made from a seed and saved as a folder that the
Auto classes load. They answer nonsense, quickly and always the same: for tests, demos and for
training from scratch, where no download is wanted.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from schemas.config import Config, parse_command

Kind = Literal["llama", "qwen2.5-vl"]

END_TOKEN = "<|im_end|>"
PAD_TOKEN = "<|endoftext|>"
SPECIAL_TOKENS = (
    PAD_TOKEN,
    "<|im_start|>",
    END_TOKEN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# ChatML. A turn's content is a string or a list of parts; the `generation` block marks what a loss
# on assistant turns keeps.
CHAT_TEMPLATE = (
    "{%- macro show(parts) -%}"
    "{%- if parts is string -%}{{ parts }}"
    "{%- else -%}{%- for part in parts -%}"
    "{%- if part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' -%}"
    "{% generation %}{{ show(message.content) + '<|im_end|>\\n' }}{% endgeneration %}"
    "{%- else -%}{{ show(message.content) + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
# Qwen's own split of text into words, with each digit by itself.
_SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS_OF_PROMPTS = (
    "system user assistant observation think answer judgement question options option video clip"
    " frame frames image second seconds time before after while then when where what which how many"
    " is are was does do the a an of in on at to from and or not no yes Yes No so because first"
    " second third fourth last left right top bottom middle red blue green yellow white black"
    " circle square triangle cross star shape object person appears moves hides blinks leaves stays"
    " shows word count colour number sufficient insufficient based correct wrong"
    " <observation> </observation> <think> </think> <answer> </answer> <judgement> </judgement>"
    " A B C D E A. B. C. D. 0 1 2 3 4 5 6 7 8 9 . , : ; ? ! ( ) = - \n"
)


@dataclass(frozen=True)
class TinySize:
    """Widths and depths.

    `weight_std` is larger than usual: with tied embeddings and 0.02 a random model only repeats its
    last token, with 0.1 it says something else to every prompt. `mlp_width` is 4 times `width`
    unless given.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    mlp_width: int | None = None
    vision_width: int = 32
    vision_layers: int = 2
    vision_heads: int = 2
    max_positions: int = 32768
    weight_std: float = 0.1

    def __post_init__(self) -> None:
        if self.width % (8 * self.heads):
            raise ValueError(
                f"width ({self.width}) must be a multiple of 8 times the number of heads"
                f" ({self.heads}): rotary positions split each head in three"
            )


def random_text(num_sentences: int = 2000, seed: int = 0) -> list[str]:
    """Sentences of words that our prompts and traces use, to train a tokenizer on."""
    rng = random.Random(seed)
    words = _WORDS_OF_PROMPTS.split(" ")
    return [" ".join(rng.choices(words, k=30)) for _ in range(num_sentences)]


def build_tokenizer(corpus: Iterable[str] | None = None, vocab_size: int = 2048) -> Any:
    """A byte-level BPE tokenizer like Qwen's, trained on `corpus`; every text can be written."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(random_text() if corpus is None else corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=32768,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def build_llama(tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> Any:
    """A random Llama for `tokenizer`."""
    import transformers

    size = size or TinySize()
    config = transformers.LlamaConfig(
        **_text_config(tokenizer, size),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
    )
    return _random_model(transformers.LlamaForCausalLM, config, tokenizer, seed)


def build_qwen2_5_vl(tokenizer: Any, size: TinySize | None = None, seed: int = 0) -> Any:
    """A random Qwen2.5-VL for `tokenizer`."""
    import transformers

    size = size or TinySize()
    pairs = size.width // size.heads // 2
    time_pairs = pairs // 4
    height_pairs = (pairs - time_pairs) // 2
    sections = [time_pairs, height_pairs, pairs - time_pairs - height_pairs]
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            **_text_config(tokenizer, size),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": sections,
            },
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_width,
            "intermediate_size": 4 * size.vision_width,
            "num_heads": size.vision_heads,
            "initializer_range": size.weight_std,
            "out_hidden_size": size.width,
            "window_size": 112,
            "fullatt_block_indexes": [size.vision_layers - 1],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
        },
        tie_word_embeddings=True,
        initializer_range=size.weight_std,
        **{
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
            for name, token in (
                ("image", "<|image_pad|>"),
                ("video", "<|video_pad|>"),
                ("vision_start", "<|vision_start|>"),
                ("vision_end", "<|vision_end|>"),
            )
        },
    )
    return _random_model(transformers.Qwen2_5_VLForConditionalGeneration, config, tokenizer, seed)


def build_processor(
    tokenizer: Any, *, min_pixels: int = 28 * 28, max_pixels: int = 9 * 28 * 28
) -> Any:
    """Qwen2.5-VL's processor; images and video frames are scaled to at most `max_pixels`."""
    import transformers

    size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    return transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )


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
    import transformers

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
    kind: Kind, folder: Path, *, size: TinySize | None = None, seed: int = 0
) -> Path:
    """Build a model of `kind` and save all its files into `folder`."""
    tokenizer = build_tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "llama":
        model, processor = build_llama(tokenizer, size, seed), tokenizer
    else:
        model, processor = build_qwen2_5_vl(tokenizer, size, seed), build_processor(tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class TinyModelConfig(Config):
    """Options of `python -m sandbox.tiny_model`."""

    kind: Kind = "llama"
    """What to build: a text model (llama) or a video language model (qwen2.5-vl)."""
    output_dir: Path
    """Folder to save the model in; files of an earlier one are overwritten."""
    seed: int = Field(0, ge=0)
    """Seed of the random weights."""
    width: int = Field(64, ge=32, multiple_of=32)
    """Width of the hidden states, a multiple of 32."""
    layers: int = Field(2, ge=1)
    """Number of transformer layers of the language model."""


def main(argv: list[str] | None = None) -> int:
    """Build, save, say where."""
    config = parse_command(
        TinyModelConfig,
        argv,
        prog="sandbox.tiny_model",
        description="Save a small random model with tokenizer, chat template and processor.",
    )
    size = TinySize(width=config.width, layers=config.layers)
    save_tiny_model(config.kind, config.output_dir, size=size, seed=config.seed)
    print(f"a random {config.kind} model (it answers nonsense) is in {config.output_dir}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
