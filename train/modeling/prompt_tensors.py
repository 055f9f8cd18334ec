"""The tensors of single prompts: their media joined, their frames, their rotary positions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.modeling.families import family_of
from train.modeling.frame_attention import frame_averages, frame_columns


@dataclass(frozen=True)
class MediaTensors:
    """Names of the tensors that describe one kind of media in a prompt."""

    pixels: str
    grid: str
    others: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every one of them; each has one row, or one row of patches, for each medium in order."""
        return (self.pixels, self.grid, *self.others)


MEDIA = {
    "video": MediaTensors("pixel_values_videos", "video_grid_thw", ("second_per_grid_ts",)),
    "image": MediaTensors("pixel_values", "image_grid_thw"),
}


def repeated_media(inputs: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Pixels, grids and seconds of one prompt, once for each of `times` equal rows."""
    return joined_media([inputs] * times)


def joined_media(prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Pixels, grids and seconds of several prompts in their order."""
    joined = {}
    for name in (name for names in MEDIA.values() for name in names.all):
        parts = [inputs[name] for inputs in prompts if inputs.get(name) is not None]
        if parts:
            joined[name] = torch.cat([torch.as_tensor(part) for part in parts])
    return joined


def frames_of_prompt(config: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Averages [K', F] over the frames of one prompt, see `FrameQueries.frames`."""
    tokens = family_of(config).vision_tokens(config)
    frames, (num_frames,) = frame_columns(
        inputs["input_ids"],
        inputs.get("video_grid_thw"),
        video_token_id=tokens.video_id,
        merge_size=tokens.merge_size,
    )
    return frame_averages(frames[0], num_frames)


def prompt_positions(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Rotary positions [3, P] of one prompt: its `position_ids`, else the model's own.

    Raises ValueError where the prompt does not end in text: completions would have no position.
    """
    ids = inputs["input_ids"]
    given = inputs.get("position_ids")
    has_media = any(inputs.get(names.grid) is not None for names in MEDIA.values())
    if given is not None:
        positions = given[-3:, 0]
    elif has_media and inputs.get("mm_token_type_ids") is None:
        raise ValueError(
            "a prompt with media needs mm_token_type_ids beside its input_ids: without them the"
            " model numbers its vision tokens as if they were text"
        )
    elif has_media:
        positions = family_of(model.config).rope_positions(model, inputs)[:, 0]
    else:
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, -1)
    if len(set(positions[:, -1].tolist())) != 1:
        raise ValueError("a prompt must end in text, this one ends in an image or video token")
    return positions


@contextmanager
def placeholders_as_text(model: Any, ids: Tensor, is_completion: Tensor) -> Iterator[Tensor]:
    """Ids [B, L] for a forward in this block, without placeholder tokens in completions.

    A model may sample the token that stands for a piece of a video in prompts. The forward would
    look for a vision feature there, but when it was sampled it was a word with its own embedding.
    So `model` (without wrappers) receives another id, and its embedding layer the true one.
    """
    tokens = family_of(model.config).vision_tokens(model.config)
    placeholders = (tokens.image_id, tokens.video_id)
    is_word = is_completion & torch.isin(ids, torch.tensor(placeholders, device=ids.device))
    if not is_word.any():
        yield ids
        return
    other = next(number for number in range(3) if number not in placeholders)
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: (ids,))
    try:
        yield ids.masked_fill(is_word, other)
    finally:
        hook.remove()
