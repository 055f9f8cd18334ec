"""The parity check passes what agrees, and names what differs."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
import torch
from helpers.tiny_models import FAMILIES, WORDS, prompt, tiny_model
from torch import Tensor

from train.trainers.parity_check import ParityError, check_parity, check_vision_tokens


def check(family: str, inputs: dict[str, Tensor], **more: Any) -> None:
    check_parity(tiny_model(family), inputs, end_ids=[WORDS], **more)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share_prompts", [True, False])
def test_the_three_ways_agree(family: str, share_prompts: bool) -> None:
    check(family, prompt(family, 0), share_prompts=share_prompts)
    both = prompt(family, 1, videos=((2, 4, 4), (3, 4, 4)), image=(1, 4, 4))
    check(family, both, share_prompts=share_prompts)


@contextmanager
def vision_of_learning(model: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Packed rows see other features than the rest: a video that gets lost on that way."""
    encode = model.model.get_video_features

    def changed(*args: Any, **given: Any) -> Any:
        output = encode(*args, **given)
        output.pooler_output = tuple(change(part) for part in output.pooler_output)
        return output

    calls = iter([False] * 2 + [True] * 9)  # the sampler, generate, then the learning pass

    @wraps(encode)  # generate looks at its parameters (transformers 5.24)
    def seen(*args: Any, **given: Any) -> Any:
        return changed(*args, **given) if next(calls) else encode(*args, **given)

    model.model.get_video_features = seen
    try:
        yield
    finally:
        del model.model.get_video_features


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_that_learning_does_not_see_is_told(family: str) -> None:
    model = tiny_model(family)
    with (
        vision_of_learning(model, torch.zeros_like),
        pytest.raises(ParityError, match=r"has log-prob .* where transformers generates it"),
    ):
        check(family, prompt(family, 0))
    with vision_of_learning(model, torch.clone):
        check(family, prompt(family, 0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video_grid_thw": torch.tensor([[2, 4, 4]])}, "12 video tokens, but its video has 32"),
        ({"pixel_values_videos": torch.zeros(40, 1176)}, "pixels for 40"),
        ({"input_ids": torch.full((1, 30), WORDS)}, "0 video tokens, but its video has 48"),
        (
            {
                "input_ids": torch.full((1, 30), WORDS),
                "video_grid_thw": None,
                "pixel_values_videos": None,
            },
            "the chat template drops media",
        ),
    ],
)
def test_tokens_that_do_not_fit_the_media_are_counted(
    change: dict[str, Tensor | None], words: str
) -> None:
    inputs = {
        name: value
        for name, value in (prompt("qwen2.5-vl", 0) | change).items()
        if value is not None
    }
    with pytest.raises(ParityError, match=re.escape(words)):
        check_vision_tokens(tiny_model("qwen2.5-vl").config, inputs)
