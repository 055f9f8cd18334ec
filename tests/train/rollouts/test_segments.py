"""Segments on the sampled tokens' own bytes."""

import random
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.naive_segments import naive_segment_ids

from sandbox.models.tiny_tokenizer import SPECIAL_TOKENS, build_tokenizer
from schemas.traces import TEMPLATES, segment_spans
from train.rollouts.segments import (
    PERCEPTION,
    REASONING,
    TokenBytes,
    inner_token_counts,
    segment_ids,
)

P2R = TEMPLATES["p2r"]
TRACE = (
    "<observation>A cat — 猫 — sits.</observation> <think>So it is a cat.\n</think>"
    "<answer>B</answer><|im_end|>"
)


def random_corpus(seed: int) -> list[str]:
    """Traces in which tags touch words, white space and each other, so that merges cross them."""
    rng = random.Random(seed)
    words = ["cat", "猫", "é", "🎬", " a", "\n", " ", ">", "<", "</", "B", "ünï"]
    tags = [f"<{slash}{tag}>" for tag in ("observation", "think", "answer") for slash in ("", "/")]
    return ["".join(rng.choices(words + 2 * tags, k=60)) for _ in range(60)]


@cache
def tokenizer_with_crossing_merges(seed: int) -> Any:
    """Byte-level BPE that splits its text nowhere: tokens such as `n> <` and `k><ans`."""
    from tokenizers import pre_tokenizers, trainers

    tokenizer = build_tokenizer(vocab_size=300)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(random_corpus(seed), trainer)
    return tokenizer


@cache
def tokenizers() -> list[Any]:
    return [build_tokenizer(), *(tokenizer_with_crossing_merges(seed) for seed in range(3))]


@cache
def vocabulary(index: int) -> dict[bytes, int]:
    token_bytes = TokenBytes(tokenizers()[index])
    pieces = {token_bytes[token_id]: token_id for token_id in range(len(tokenizers()[index]))}
    pieces.pop(b"")
    return pieces


def randomly_tokenized(text: str, index: int, rng: random.Random) -> list[int]:
    """The text in tokens that an encoder would seldom choose, but a policy may sample."""
    pieces = vocabulary(index)
    longest = max(map(len, pieces))
    data, token_ids = text.encode(), []
    while data:
        choices = [data[:n] for n in range(1, longest + 1) if data[:n] in pieces]
        piece = rng.choice(choices)
        token_ids.append(pieces[piece])
        data = data[len(piece) :]
    return token_ids


def segments_of(token_ids: list[int], token_bytes: TokenBytes, template: str = "p2r") -> list[int]:
    row = torch.tensor([token_ids])
    return segment_ids(row, torch.ones_like(row), token_bytes, TEMPLATES[template])[0].tolist()


class Pieces:
    """A tokenizer whose tokens are given: its vocabulary is written by the test."""

    def __init__(self, *pieces: str | bytes) -> None:
        from tokenizers import Tokenizer, decoders, models
        from transformers import PreTrainedTokenizerFast
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        alphabet = bytes_to_unicode()
        data = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
        names = ["".join(alphabet[byte] for byte in piece) for piece in data]
        vocab = {name: index for index, name in enumerate(dict.fromkeys(names))}
        backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
        backend.decoder = decoders.ByteLevel()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
        self.tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
        self.ids = [vocab[name] for name in names]
        self.token_bytes = TokenBytes(self.tokenizer)

    def segments(self, template: str = "p2r") -> list[int]:
        return segments_of([*self.ids, self.tokenizer.eos_token_id], self.token_bytes, template)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # the end token is the last id of each expected list
        pytest.param(
            ["<observation>", "cat", "</observation>", " ", "<think>", "x", "</think>"],
            [1, 1, 1, 2, 2, 2, 2, 2],
            id="tags are whole tokens",
        ),
        pytest.param(
            ["\n", "<observation>", "cat", "</observation>", "<think>"],
            [1, 1, 1, 1, 2, 2],
            id="text before the observation is perception",
        ),
        pytest.param(
            ["<observation>cat</observation", "><", "think>x"],
            [1, 1, 2, 2],
            id="a token over the closing tag's edge is perception",
        ),
        pytest.param(
            ["<observation>cat</observation>", " <", "think>x"],
            [1, 2, 2, 2],
            id="a token that begins behind the closing tag is reasoning",
        ),
        pytest.param(
            ["\n<obs", "ervation>cat</obser", "vation> <thi", "nk>x"],
            [1, 1, 1, 2, 2],
            id="tags in several tokens",
        ),
        pytest.param(
            ["<observation>", b"\xe7\x8c", b"\xab</observation>", b"\xe7", b"\x8c\xab"],
            [1, 1, 1, 2, 2, 2],
            id="characters in several tokens",
        ),
        pytest.param(
            ["<observation>", b"\xe7\x8c", "</observation>", b"\xff", b"\x8c", "x"],
            [1, 1, 1, 2, 2, 2, 2],
            id="bytes that are no text",
        ),
        pytest.param(["<observation>cat", " dog"], [2, 2, 2], id="truncated observation"),
        pytest.param(["<observation>cat</observation>"], [1, 2], id="truncated after observation"),
        pytest.param(["cat</observation>", "x"], [2, 2, 2], id="never opened"),
        pytest.param(["<observation> \n</observation>", "x"], [2, 2, 2], id="empty observation"),
        # U+3000 is white space as a character and is not as bytes
        pytest.param(["<observation>\u3000</observation>", "x"], [2, 2, 2], id="ideographic space"),
        # 8 characters, 24 bytes: the closing tag begins at byte 37 and ends at character 35
        pytest.param(
            ["<observation>", "猫" * 8, "</observation>", "<think>"],
            [1, 1, 1, 2, 2],
            id="three bytes a character",
        ),
        pytest.param(["<observation>é</observation>", "é"], [1, 2, 2], id="two bytes a character"),
        pytest.param(
            ["<observation>a</observation>", "<observation>b</observation>", "x"],
            [2, 2, 2, 2],
            id="two observations",
        ),
        pytest.param(["<think>x</think>", "<answer>B</answer>"], [2, 2, 2], id="no observation"),
        pytest.param(
            ["<think>x</think>", "<observation>a</observation>"],
            [2, 2, 2],
            id="observation out of place",
        ),
        pytest.param([], [2], id="nothing but the end token"),
    ],
)
def test_tokens_by_hand(pieces: list[str | bytes], expected: list[int]) -> None:
    """Seen to catch: bytes counted as characters, a token's last byte deciding, edges off."""
    assert Pieces(*pieces).segments() == expected


@pytest.mark.parametrize("template", ["think-answer", "grounding"])
def test_templates_without_perception_are_all_reasoning(template: str) -> None:
    pieces = Pieces("<observation>cat</observation>", "<think>x</think>", "<answer>B</answer>")
    assert pieces.segments(template) == [2, 2, 2, 2]


@given(st.integers(0, 3), st.integers(0, 10**6), st.booleans())
def test_any_tokenisation_of_a_trace_is_cut_at_the_same_place(
    index: int, seed: int, is_broken: bool
) -> None:
    rng = random.Random(seed)
    words = ["cat", "猫", "é", " ", "\n", "<", ">", "</", "🎬", "<b>", "observation", "\u3000"]
    observation, think = ("".join(rng.choices(words, k=rng.randint(1, 6))) for _ in range(2))
    text = (
        rng.choice(["", "\n", " é"])
        + f"<observation>{observation}</observation>"
        + rng.choice(["", " ", "\n\n", "猫"])
        + f"<think>{think}</think><answer>B</answer>"
        + rng.choice(["", "\n", "🎬"])
    )
    if is_broken:
        start = rng.randrange(len(text))
        text = text[:start] + text[start + rng.randint(1, 9) :]
    tokenizer, token_bytes = tokenizers()[index], TokenBytes(tokenizers()[index])
    token_ids = randomly_tokenized(text, index, rng)
    pieces = [token_bytes[token_id] for token_id in token_ids]
    assert b"".join(pieces) == text.encode()
    assert token_bytes.text(token_ids) == tokenizer.decode(token_ids) == text

    segments = segments_of(token_ids, token_bytes)
    has_observation = any(span.tag == "observation" for span in segment_spans(text, P2R))
    assert segments == naive_segment_ids(pieces, has_observation)
    assert segments == sorted(segments)
    counts = inner_token_counts(token_ids, token_bytes, P2R)
    assert set(counts) == {span.tag for span in segment_spans(text, P2R)}


@given(
    st.integers(0, 3),
    st.lists(st.integers(0, 2100), max_size=30),
)
def test_random_tokens_decode_to_their_own_bytes(index: int, token_ids: list[int]) -> None:
    """Special tokens, ids beyond the vocabulary and cut characters included."""
    tokenizer = tokenizers()[index]
    token_bytes = TokenBytes(tokenizer)
    text = token_bytes.join(token_ids).decode("utf-8", errors="replace")
    assert text == token_bytes.text(token_ids)
    assert text == tokenizer.decode(token_ids, skip_special_tokens=True)
    segments = segments_of(token_ids, token_bytes) if token_ids else []
    assert segments == sorted(segments)
    assert set(segments) <= {PERCEPTION, REASONING}


def test_merges_cross_the_edges_of_tags() -> None:
    """The property above is tried on what it is about."""
    crossing = [piece for piece in vocabulary(1) if b"><" in piece or b"> <" in piece]
    assert len(crossing) > 5
    assert len([piece for piece in vocabulary(1) if any(byte > 0x7F for byte in piece)]) > 130


def test_a_batch_is_masked_row_by_row() -> None:
    """Seen to catch: padding read as text, the first row's boundary used for all."""
    tokenizer = tokenizers()[0]
    token_bytes = TokenBytes(tokenizer)
    rows = [tokenizer(TRACE).input_ids, tokenizer("no tags<|im_end|>").input_ids, []]
    width = max(map(len, rows)) + 3
    padding = tokenizer("</observation>").input_ids[0]
    completion_ids = torch.full((3, width), padding)
    mask = torch.zeros(3, width, dtype=torch.int32)
    for index, row in enumerate(rows):
        completion_ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    before = completion_ids.clone()
    result = segment_ids(completion_ids, mask, token_bytes, P2R)
    assert result.dtype == torch.long
    assert torch.equal(completion_ids, before)
    for index, row in enumerate(rows):
        expected = segments_of(row, token_bytes) if row else []
        assert result[index].tolist() == expected + [0] * (width - len(row))
    assert set(result[0].tolist()) == {0, 1, 2}
    assert set(result[1].tolist()) == {0, 2}
    assert set(result[2].tolist()) == {0}
    # completions padded on the left are read alike
    flipped = segment_ids(completion_ids.roll(3, dims=1), mask.roll(3, dims=1), token_bytes, P2R)
    assert torch.equal(flipped, result.roll(3, dims=1))


def test_tokens_between_the_tags_are_counted() -> None:
    pieces = Pieces("<observation>", "a", " b", "</observation> <think>", "x", "</", "think>")
    # "</" begins at the closing tag; the end token has no bytes
    ids = [*pieces.ids, pieces.tokenizer.eos_token_id]
    assert inner_token_counts(ids, pieces.token_bytes, P2R) == {"observation": 2, "think": 1}
    assert inner_token_counts([], pieces.token_bytes, P2R) == {}


def test_special_tokens_and_ids_without_a_token_have_no_bytes() -> None:
    tokenizer = tokenizers()[0]
    token_bytes = TokenBytes(tokenizer)
    assert [token_bytes[tokenizer.convert_tokens_to_ids(token)] for token in SPECIAL_TOKENS] == [
        b""
    ] * len(SPECIAL_TOKENS)
    assert token_bytes[10**6] == b""


def test_added_tokens_that_are_not_special_keep_their_text() -> None:
    """Qwen3's `<think>` is one token of its own and part of the text."""
    from tokenizers import AddedToken

    tokenizer = build_tokenizer(vocab_size=300)
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("two wörds")])
    token_ids = tokenizer("a<think>two wörds").input_ids
    token_bytes = TokenBytes(tokenizer)
    assert [token_bytes[token_id] for token_id in token_ids] == [
        b"a",
        b"<think>",
        "two wörds".encode(),
    ]
    assert token_bytes.text(token_ids) == tokenizer.decode(token_ids)


def test_tokenizers_of_the_sentencepiece_kind_are_refused() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={"▁a": 0}, merges=[]))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    with pytest.raises(ValueError, match=r"decodes by .*ByteFallback.*byte-level BPE"):
        TokenBytes(PreTrainedTokenizerFast(tokenizer_object=backend))
    with pytest.raises(ValueError, match="str '' decodes by None"):
        TokenBytes("Qwen/Qwen2.5-VL-3B-Instruct")


def test_ids_and_mask_of_different_shape_are_refused() -> None:
    token_bytes = TokenBytes(tokenizers()[0])
    with pytest.raises(ValueError, match=r"ids \(1, 3\) and completion mask \(1, 2\) must both"):
        segment_ids(torch.zeros(1, 3), torch.zeros(1, 2), token_bytes, P2R)
