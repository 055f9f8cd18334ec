"""The processor's tensors of single prompts: cut out of a batch, put in a row, repeated."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from train.frame_attention import frame_averages, frame_columns

_VIDEO = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
_IMAGE = ("pixel_values", "image_grid_thw")


def split_prompts(batch: Mapping[str, Tensor], config: Any) -> list[dict[str, Tensor]]:
    """Cut a padded batch of prompts into inputs of one prompt each, without padding.

    `batch`: processor output [B, P] with `attention_mask`; `config`: the model's configuration. A
    prompt's videos (images) are those whose tokens it holds.
    """
    merged = config.vision_config.spatial_merge_size**2
    videos, images = (_Media(batch, names, merged) for names in (_VIDEO, _IMAGE))
    prompts = []
    for row, mask in enumerate(batch["attention_mask"].bool()):
        inputs = {
            name: batch[name][row : row + 1, mask]
            for name in ("input_ids", "mm_token_type_ids")
            if batch.get(name) is not None
        }
        if (positions := batch.get("position_ids")) is not None:
            inputs["position_ids"] = positions[-3:, row : row + 1, mask]
        ids = inputs["input_ids"]
        inputs |= videos.take(int((ids == config.video_token_id).sum()), row)
        inputs |= images.take(int((ids == config.image_token_id).sum()), row)
        prompts.append(inputs)
    return prompts


@dataclass
class _Media:
    """The videos or the images of a batch, handed out in order."""

    batch: Mapping[str, Tensor]
    names: tuple[str, ...]
    merged: int
    used: int = field(default=0, init=False)
    patches: int = field(default=0, init=False)

    def take(self, num_tokens: int, row: int) -> dict[str, Tensor]:
        """The next media, as many as `num_tokens` tokens stand for."""
        if not num_tokens:
            return {}
        pixels, grid_name, *others = self.names
        grids = self.batch[grid_name]
        first, start, missing = self.used, self.patches, num_tokens * self.merged
        while missing > 0 and self.used < len(grids):
            size = int(grids[self.used].prod())
            self.used, self.patches, missing = self.used + 1, self.patches + size, missing - size
        if missing:
            raise ValueError(f"{grid_name} does not fit the {num_tokens} media tokens of row {row}")
        taken = {
            grid_name: grids[first : self.used],
            pixels: self.batch[pixels][start : self.patches],
        }
        for name in others:
            if self.batch.get(name) is not None:
                taken[name] = torch.as_tensor(self.batch[name])[first : self.used]
        return taken


def repeated_media(inputs: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Pixels, grids and seconds of one prompt, once for each of so many equal rows."""
    return joined_media([inputs] * times)


def joined_media(prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Pixels, grids and seconds of several prompts in their order."""
    joined = {}
    for name in (*_VIDEO, *_IMAGE):
        parts = [inputs[name] for inputs in prompts if inputs.get(name) is not None]
        if parts:
            joined[name] = torch.cat([torch.as_tensor(part) for part in parts])
    return joined


def frames_of_prompt(config: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Averages [K', F] over the frames of one prompt, see `train.frame_attention.Look`."""
    frames, (num_frames,) = frame_columns(
        inputs["input_ids"],
        inputs.get("video_grid_thw"),
        video_token_id=config.video_token_id,
        merge_size=config.vision_config.spatial_merge_size,
    )
    return frame_averages(frames[0], num_frames)


def prompt_positions(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Rotary positions [3, P] of one prompt: those given, else those of the model's own forward.

    Raises ValueError where the prompt does not end in text: what follows would have no position.
    """
    ids = inputs["input_ids"]
    given = inputs.get("position_ids")
    has_media = any(inputs.get(name) is not None for name in ("video_grid_thw", "image_grid_thw"))
    if given is not None:
        positions = given[-3:, 0]
    elif has_media and inputs.get("mm_token_type_ids") is None:
        raise ValueError(
            "a prompt with media needs mm_token_type_ids beside its input_ids: without them the"
            " model numbers its vision tokens as if they were text"
        )
    elif has_media:
        names = ("video_grid_thw", "image_grid_thw", "second_per_grid_ts")
        grids = {name: inputs[name] for name in names if inputs.get(name) is not None}
        positions = model.model.get_rope_index(ids, inputs["mm_token_type_ids"], **grids)[0][:, 0]
    else:
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, -1)
    if len(set(positions[:, -1].tolist())) != 1:
        raise ValueError("a prompt must end in text, this one ends in an image or video token")
    return positions


@contextmanager
def said_as_words(model: Any, ids: Tensor, is_completion: Tensor) -> Iterator[Tensor]:
    """Ids [B, L] for a forward in this block in which completions hold no media placeholder.

    Any token can be drawn, also the one that stands for a piece of a video in prompts. There the
    model would look for a feature; while rows were drawn, it was a word with its own embedding. So
    `model` (unwrapped) is given another id, and its embedding layer the true one.
    """
    placeholders = (model.config.image_token_id, model.config.video_token_id)
    is_said = is_completion & torch.isin(ids, torch.tensor(placeholders, device=ids.device))
    if not is_said.any():
        yield ids
        return
    other = next(number for number in range(3) if number not in placeholders)
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: (ids,))
    try:
        yield ids.masked_fill(is_said, other)
    finally:
        hook.remove()
