"""What a model folder says in words: its chat template, its tokens, where it ends a reply.

A template that cannot be run, or that leaves out what the user says, would fail or falsify every
question; a token without an embedding, or an end that is no token, every reply. Each is refused by
name when the model is opened.
"""

import json
from pathlib import Path
from typing import Any

import jinja2

from cli.config import UsageError

_SPECIMEN = "the words of a user"
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
# What a template's filters and a processor's own code raise, besides the template's errors.
_TEMPLATE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def unreadable_settings(folder: Path) -> str:
    """Which file of a model's settings is no JSON object, in words; "" where none is.

    transformers passes over some of them, and takes its own defaults.
    """
    for name in _SETTINGS:
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            settings = None
        if not isinstance(settings, dict):
            return f"{name} holds no JSON object; fetch it again"
    return ""


def refuse_unusable_template(processor: Any) -> None:
    """Raise UsageError where a chat template cannot be run, or leaves out what the
    user says."""
    name = getattr(getattr(processor, "tokenizer", processor), "name_or_path", "") or "here"
    try:
        written = _specimen_prompt(processor)
    except (jinja2.TemplateError, *_TEMPLATE_ERRORS) as error:
        words = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the chat template of the model {name} cannot be used ({type(error).__name__}: "
            f"{words}); give a model with a whole one"
        ) from error
    if _SPECIMEN not in written:
        raise UsageError(
            f"the chat template of the model {name} leaves out what the user says: of the words "
            f"{_SPECIMEN!r} it makes {written[:80]!r}; give a model with a whole one"
        )


def refuse_foreign_tokens(source: str | Path, model: Any, processor: Any) -> None:
    """Raise UsageError where a model and the tokenizer beside it do not belong
    together: prompts would hold tokens that it has no embedding for, or no place for a video."""
    tokenizer = getattr(processor, "tokenizer", processor)
    num_known = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer(_specimen_prompt(processor), add_special_tokens=False)["input_ids"])
    if largest >= num_known:
        raise UsageError(
            f"the model {source} knows {num_known:,} tokens, and its chat template writes the "
            f"token {largest:,} ({tokenizer.convert_ids_to_tokens(largest)!r}): its embedding was "
            "not resized when tokens were added; give the tokenizer that belongs to it"
        )
    for name in ("image_token_id", "video_token_id"):
        own, given = getattr(model.config, name, None), getattr(processor, name, None)
        if own is not None and given is not None and own != given:
            raise UsageError(
                f"the model {source} takes the token {own:,} as {name}, and its processor writes "
                f"{given:,}; give the processor that belongs to it"
            )


def unusable_end(generation_config: Any) -> str:
    """What is wrong with the tokens that end a reply, in words; "" where nothing is."""
    ends = getattr(generation_config, "eos_token_id", None)
    for end in ends if isinstance(ends, list | tuple) else [ends]:
        is_token = isinstance(end, int) and not isinstance(end, bool) and end >= 0
        if end is not None and not is_token:
            return f"its eos_token_id is {ends!r}, and numbers of tokens were expected"
    return ""


def _specimen_prompt(processor: Any) -> str:
    """A user's turn as the template writes it; processors take a list of parts, tokenizers text."""
    has_parts = hasattr(processor, "tokenizer")
    content: Any = [{"type": "text", "text": _SPECIMEN}] if has_parts else _SPECIMEN
    written = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return str(written)
