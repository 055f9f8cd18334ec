"""A transformers model in this process: prompts and images in, token ids and texts out, in batches.

A request's reply does not depend on its neighbours in a batch: prompts are padded on the left and
masked, each row has its own token limit, and each sampled row has a random generator of its
own, seeded by the request. (In half precision, padding can still move the last digits of a logit.)
"""

import io
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LogitsProcessor,
    StoppingCriteria,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from judges.backends.base import BackendUnavailableError, ChatRequest, TextPart
from judges.backends.model_files.texts import refuse_foreign_tokens
from judges.backends.model_folders import (
    BrokenWeightsError,
    loading_errors,
    read_whole_model,
    reading_tokenizers,
    refuse_broken_files,
    take_chat_template,
)
from schemas.prompting import spelled_apart, turn_markers

_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class RowSampling:
    """How one row is sampled. `seed` is derived from the request, so that a repeat repeats."""

    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Generated:
    """One row's end. `is_ended` is false where the token limit cut it."""

    text: str
    input_tokens: int
    output_tokens: int
    is_ended: bool


_THINKING = re.compile(
    r"think|thought|reason|channel|message|solution|inner_(?:pre|suf)fix|unused9[45]", re.IGNORECASE
)
"""In tokens with which families of models mark what they think (`judges.scoring.thinking`)."""


class PromptTooLongError(ValueError):
    """The prompt and the tokens asked for do not fit the model's positions."""


def own_device(num_gpus: int, environment: Mapping[str, str]) -> str:
    """The device of this process, of those that it sees: where a launcher (`accelerate launch`,
    `torchrun`) started several, the one with its number.

    "cuda" alone would not do: models are loaded in a thread of their own, and CUDA's current device
    is a thread's, so that every process would put its model on the first GPU.
    """
    if not num_gpus:
        return "cpu"
    number = int(environment.get("LOCAL_RANK", "0"))
    # A launcher may show each process its own GPU only.
    return f"cuda:{number if number < num_gpus else 0}"


class LocalModel:
    """Weights, tokenizer and processor, loaded from `folder` alone. Not thread-safe."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        config = _known(lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False), folder)
        self.takes_images = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if not self.takes_images and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise BackendUnavailableError(
                f"the model in {folder} is a {type(config).__name__}: a causal language model or an"
                " image-text-to-text model is needed"
            )
        chooser = AutoModelForImageTextToText if self.takes_images else AutoModelForCausalLM
        reader = AutoProcessor if self.takes_images else AutoTokenizer
        self._processor: Any = _known(
            lambda: reader.from_pretrained(folder, trust_remote_code=False), folder
        )
        self._tokenizer: Any = getattr(self._processor, "tokenizer", self._processor)
        if not take_chat_template(self._processor):
            raise BackendUnavailableError(
                f"the model in {folder} has no chat template: an instruction-tuned model is needed"
            )
        self.device = device or own_device(torch.cuda.device_count(), os.environ)

        def read(source: str, **options: Any) -> Any:
            return chooser.from_pretrained(source, dtype="auto", **options)

        model = _known(lambda: read_whole_model(read, folder), folder)
        refuse_foreign_tokens(folder, model, self._processor)
        self.model: Any = _known(lambda: model.to(self.device).eval(), folder)
        self._max_positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._end_ids = self._find_end_ids()
        self._unsaid_ids = _unsaid_ids(self._tokenizer)
        self._markers = turn_markers(self._tokenizer, self._specimen_chats())

    def _specimen_chats(self) -> str:
        """Chats of plain words as the template writes them; not each takes a system's turn."""
        words: Any = [{"type": "text", "text": "x"}] if self.takes_images else "x"
        turns = [{"role": role, "content": words} for role in ("user", "assistant", "user")]
        chats = []
        for system in ([], [{"role": "system", "content": words}]):
            with suppress(jinja2.TemplateError):
                chats.append(
                    self._processor.apply_chat_template(
                        [*system, *turns], tokenize=False, add_generation_prompt=True
                    )
                )
        return "\n".join(chats)

    def _find_end_ids(self) -> frozenset[int]:
        from_model = self.model.generation_config.eos_token_id
        ids = from_model if isinstance(from_model, list) else [from_model]
        return frozenset(
            token for token in (*ids, self._tokenizer.eos_token_id) if token is not None
        )

    def count_tokens(self, request: ChatRequest) -> int:
        """Input tokens of `request`, images included."""
        return int(self._encode([request])["attention_mask"].sum())

    def generate(
        self, requests: Sequence[ChatRequest], samplings: Sequence[RowSampling | None]
    ) -> list[Generated]:
        """Replies to `requests` in one batch; a sampling of None is greedy."""
        inputs = self._encode(requests)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        limits = [request.max_tokens for request in requests]
        self._check_lengths(lengths, limits)
        prompt_width = inputs["input_ids"].shape[1]
        processors = [RowSampler(samplings)] if any(samplings) else []
        with torch.inference_mode():
            output = self.model.generate(
                **inputs.to(self.device),
                do_sample=False,
                num_beams=1,
                num_return_sequences=1,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=max(limits),
                pad_token_id=self._tokenizer.pad_token_id,
                eos_token_id=sorted(self._end_ids),
                logits_processor=processors,
                stopping_criteria=[_RowLimits(limits, prompt_width)],
            )
        return [
            self._read_row(row[prompt_width:].tolist(), limit, length)
            for row, limit, length in zip(output, limits, lengths, strict=True)
        ]

    def _encode(self, requests: Sequence[ChatRequest]) -> Any:
        texts = [
            self._processor.apply_chat_template(
                self._messages(request), tokenize=False, add_generation_prompt=True
            )
            for request in requests
        ]
        options = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
        if not self.takes_images:
            return self._tokenizer(texts, add_special_tokens=False, **options)
        images = [
            [Image.open(io.BytesIO(part.data)).convert("RGB") for part in request.images]
            for request in requests
        ]
        return self._processor(text=texts, images=images if any(images) else None, **options)

    def _messages(self, request: ChatRequest) -> list[dict[str, Any]]:
        content: Any = self._plain(request.text)
        if self.takes_images:
            content = [
                {"type": "text", "text": self._plain(part.text)}
                if isinstance(part, TextPart)
                else {"type": "image"}
                for part in request.parts
            ]
        system = self._plain(request.system)
        if self.takes_images and system:
            system_content: Any = [{"type": "text", "text": system}]
        else:
            system_content = system
        head = [{"role": "system", "content": system_content}] if system else []
        return [*head, {"role": "user", "content": content}]

    def _plain(self, text: str) -> str:
        """`text` with special tokens spelled apart: data cannot end a turn or add an image."""
        return spelled_apart(text, self._markers)

    def _check_lengths(self, lengths: list[int], limits: list[int]) -> None:
        if self._max_positions is None:
            return
        for length, limit in zip(lengths, limits, strict=True):
            if length + limit > self._max_positions:
                raise PromptTooLongError(
                    f"{length} prompt tokens and {limit} new ones do not fit the model's"
                    f" {self._max_positions} positions: give fewer or smaller frames"
                )

    def _read_row(self, ids: list[int], limit: int, input_tokens: int) -> Generated:
        ids = ids[:limit]
        ends = [place for place, token in enumerate(ids) if token in self._end_ids]
        if ends:
            ids = ids[: ends[0] + 1]
        said = [token for token in ids if token not in self._unsaid_ids]
        text = self._tokenizer.decode(said, skip_special_tokens=False)
        return Generated(text, input_tokens, len(ids), bool(ends))


def _unsaid_ids(tokenizer: Any) -> frozenset[int]:
    """Special tokens that are no part of a reply's text. Marks of thinking are: without them what
    was thought would look as if it was said."""
    special = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return frozenset(
        number for number, text in (special | dict(named)).items() if not _THINKING.search(text)
    )


def _known(load: Any, folder: Path) -> Any:
    """`load()`; raises BackendUnavailableError with one sentence where that fails."""
    try:
        refuse_broken_files(folder)
        with reading_tokenizers():
            return load()
    except BrokenWeightsError as error:
        raise BackendUnavailableError(str(error)) from error
    except loading_errors() as error:
        words = " ".join(str(error).split())[:500]
        raise BackendUnavailableError(f"the model in {folder} cannot be loaded: {words}") from error


class _RowLimits(StoppingCriteria):  # type: ignore[misc]  # untyped in transformers
    """Ends each row at its own number of new tokens."""

    def __init__(self, limits: Sequence[int], prompt_width: int) -> None:
        self._limits = torch.tensor(limits)
        self._prompt_width = prompt_width

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return (input_ids.shape[1] - self._prompt_width >= self._limits).to(input_ids.device)


class RowSampler(LogitsProcessor):  # type: ignore[misc]  # untyped in transformers
    """Turns sampling into a greedy choice, row by row: argmax of logits / T plus Gumbel noise.

    That argmax is distributed as softmax(logits / T) (Gumbel-max). Rows without sampling
    stay as they are, so greedy and sampled requests share a batch.
    """

    def __init__(self, samplings: Sequence[RowSampling | None]) -> None:
        self._samplings = samplings
        self._generators = [
            torch.Generator().manual_seed(one.seed) if one else None for one in samplings
        ]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores of the next token, one row per request."""
        scores = scores.clone()
        rows = zip(self._samplings, self._generators, strict=True)
        for row, (sampling, generator) in enumerate(rows):
            if sampling is None:
                continue
            logits = scores[row].float() / sampling.temperature
            if sampling.top_p < 1:
                logits = _keep_top_p(logits, sampling.top_p)
            noise = torch.empty(logits.shape).exponential_(generator=generator).log().neg()
            scores[row] = (logits + noise.to(logits.device)).to(scores.dtype)
        return scores


def _keep_top_p(logits: Any, top_p: float) -> Any:
    """The smallest set of tokens whose probability reaches `top_p`; the others become -inf."""
    ordered, order = logits.sort(descending=True)
    probabilities = ordered.softmax(-1)
    is_beyond = probabilities.cumsum(-1) - probabilities >= top_p
    return logits.masked_fill(torch.zeros_like(is_beyond).scatter(0, order, is_beyond), -torch.inf)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a pass failed for want of memory: torch's own error, or the words of an allocator."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS
    )


def release_memory() -> None:
    """Give the accelerator's cached blocks back after a pass that ran out of memory."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
