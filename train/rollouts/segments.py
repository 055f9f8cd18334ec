"""Which sampled token belongs to which segment, found on the tokens' own bytes.

Text that is tokenised again may fall into other tokens than those that were sampled, so segments
are never found that way. Each sampled id is turned into its bytes, the tags are found in the bytes
put together, and a token belongs to the segment of its first byte.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from schemas.traces import SegmentSpan, TraceTemplate, segment_spans
from train.rollouts.types import Rollout

NOT_TRAINED, PERCEPTION, REASONING = 0, 1, 2


class TokenBytes:
    """The bytes that each token id stands for in a byte-level tokenizer (Qwen, Llama 3, GPT-2).

    Put together they are what `tokenizer.decode(ids, skip_special_tokens=True)` decodes: special
    tokens and ids without a token (padding of the embedding matrix) have no bytes.
    """

    def __init__(self, tokenizer: Any) -> None:
        # lazily: the maths of this room must not need a tokenizer library
        from tokenizers.decoders import ByteLevel

        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        if not isinstance(decoder, ByteLevel):
            raise ValueError(
                f"{type(tokenizer).__name__} {getattr(tokenizer, 'name_or_path', '')!r} decodes by"
                f" {decoder!r}, so a token's bytes depend on its neighbours; give the tokenizer of"
                " a model with byte-level BPE (Qwen, Llama 3)"
            )
        self._tokenizer = tokenizer
        self._known = {
            token_id: b""
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }

    def __getitem__(self, token_id: int) -> bytes:
        known = self._known.get(token_id)
        if known is None:
            token = self._tokenizer.convert_ids_to_tokens(token_id)
            known = self._known[token_id] = b"" if token is None else _bytes_of(token)
        return known

    def join(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of the tokens put together."""
        return b"".join(self[token_id] for token_id in token_ids)

    def text(self, token_ids: Iterable[int]) -> str:
        """The tokens as text; bytes that are no UTF-8 become U+FFFD. Rewards must read this text:
        the spans that they see are then those that the tokens are cut by."""
        return self.join(token_ids).decode("utf-8", errors="replace")


def segment_ids(
    completion_ids: Tensor,
    completion_mask: Tensor,
    token_bytes: TokenBytes,
    template: TraceTemplate,
) -> Tensor:
    """Segment of each token: 0 not trained, 1 perception, 2 reasoning.  [R, T], [R, T] -> [R, T].

    With a well-formed perception segment (`segment_spans`), tokens up to and including the one that
    holds the last character of its closing tag are perception (text before the segment too) and all
    later ones are reasoning, the end token included. Without one every token is reasoning, as
    VideoP2R (arXiv:2511.11113) leaves open and we decided. Masked tokens are 0 and are not read.
    Each row is 1...1 2...2 where its mask is set.
    """
    if completion_ids.ndim != 2 or completion_ids.shape != completion_mask.shape:
        raise ValueError(
            f"completion ids {tuple(completion_ids.shape)} and completion mask"
            f" {tuple(completion_mask.shape)} must both be [rollouts, tokens]"
        )
    result = torch.zeros_like(completion_ids, dtype=torch.long)
    is_sampled = completion_mask.bool()
    for row, row_is_sampled, row_ids in zip(result, is_sampled, completion_ids, strict=True):
        starts, spans = _starts_and_spans(row_ids[row_is_sampled].tolist(), token_bytes, template)
        boundary = _end_of_perception(spans, template)
        row[row_is_sampled] = torch.tensor(
            [PERCEPTION if start < boundary else REASONING for start in starts],
            dtype=torch.long,
            device=row.device,
        )
    return result


def inner_token_counts(
    token_ids: list[int], token_bytes: TokenBytes, template: TraceTemplate
) -> dict[str, int]:
    """How many tokens begin between the tags of each well-formed segment, by its tag's name."""
    starts, spans = _starts_and_spans(token_ids, token_bytes, template)
    return {
        span.tag: sum(
            span.inner_start <= start < span.inner_end and bool(token_bytes[token_id])
            for token_id, start in zip(token_ids, starts, strict=True)
        )
        for span in spans
    }


def rollouts_of(
    completions: Sequence[Tensor],
    token_bytes: TokenBytes,
    template: TraceTemplate,
    end_ids: Sequence[int],
    logprobs: Sequence[Tensor] | None = None,
) -> tuple[Rollout, ...]:
    """Sampled completions, each long [C] with C >= 1, as rollouts; `logprobs` of their tokens."""
    rollouts = []
    for number, ids in enumerate(completions):
        tokens = ids.tolist()
        segments = segment_ids(ids[None], torch.ones_like(ids)[None], token_bytes, template)[0]
        rollouts.append(
            Rollout(
                token_ids=ids,
                text=token_bytes.text(tokens),
                is_truncated=tokens[-1] not in end_ids,
                segment_ids=segments,
                token_counts=inner_token_counts(tokens, token_bytes, template),
                logprobs=None if logprobs is None else logprobs[number],
            )
        )
    return tuple(rollouts)


def _starts_and_spans(
    token_ids: list[int], token_bytes: TokenBytes, template: TraceTemplate
) -> tuple[list[int], list[SegmentSpan]]:
    """The first byte of each token, and the well-formed segments as offsets of bytes."""
    pieces = [token_bytes[token_id] for token_id in token_ids]
    starts = list(accumulate(map(len, pieces), initial=0))[:-1]
    # Each byte that is no UTF-8 (a character cut by the end of the completion, or never finished)
    # becomes one surrogate, so characters can be counted back into bytes.
    text = b"".join(pieces).decode("utf-8", errors="surrogateescape")

    def num_bytes(num_characters: int) -> int:
        return len(text[:num_characters].encode("utf-8", errors="surrogateescape"))

    spans = [
        SegmentSpan(
            span.tag,
            span.role,
            *map(num_bytes, (span.start, span.end, span.inner_start, span.inner_end)),
        )
        for span in segment_spans(text, template)
    ]
    return starts, spans


def _end_of_perception(spans: list[SegmentSpan], template: TraceTemplate) -> int:
    """Where reasoning begins: behind the perception segments when each is well formed, else 0."""
    ends = [span.end for span in spans if span.role == "perception"]
    num_expected = sum(segment.role == "perception" for segment in template.segments)
    return max(ends) if ends and len(ends) == num_expected else 0


def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(0x100)) - set(printable))
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }


_ALPHABET = _byte_alphabet()


def _bytes_of(token: str) -> bytes:
    """As the decoder reads it: in the byte alphabet if it can be, otherwise the text itself."""
    if all(character in _ALPHABET for character in token):
        return bytes(_ALPHABET[character] for character in token)
    return token.encode("utf-8")
