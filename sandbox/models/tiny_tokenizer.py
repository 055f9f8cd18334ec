"""Tokenizers of small models, trained locally: byte-level BPE like Qwen's, ChatML turns."""

import random
from collections.abc import Iterable
from typing import Any

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
# ChatML. A turn's content is a string or a list of parts; the `generation` block marks the tokens
# of assistant turns, for losses on those alone.
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


def transformers_library() -> Any:
    """transformers, imported when a model is built and not before."""
    import transformers

    return transformers


def random_text(num_sentences: int = 2000, seed: int = 0) -> list[str]:
    """Sentences of words that our prompts and traces use, to train a tokenizer on."""
    rng = random.Random(seed)
    words = _WORDS_OF_PROMPTS.split(" ")
    return [" ".join(rng.choices(words, k=30)) for _ in range(num_sentences)]


def build_tokenizer(corpus: Iterable[str] | None = None, vocab_size: int = 2048) -> Any:
    """A byte-level BPE tokenizer like Qwen's, trained on `corpus`; any text can be encoded."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

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
    return transformers_library().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=32768,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
