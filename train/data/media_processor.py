"""Videos and images as the model's own processor prepares them: pixels, grids, tokens, seconds.

Processors are called so that they change as little as possible:

- `media` has already chosen the frames and capped their size (`FrameSpec`): the processor does not
  sample again and only rounds a frame to whole tokens (28 pixels for Qwen2.5-VL, 32 for Qwen3-VL);
- times are the frames' real ones: a temporal cell of two frames lasts twice their mean distance;
- an odd number of frames repeats the last one, as the processors do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from math import ceil, sqrt
from typing import Any

import numpy as np
from torch import Tensor

from media.frames import EncodedFrames, MediaError
from schemas.questions import MediaRef
from schemas.samples import Reason
from train.data.frame_loader import DecodedMedia, FrameLoader
from train.modeling.loading import processor_family, video_metadata

# Processors refuse longer pictures.
_MAX_ASPECT = 200
_TOKEN_TEXTS_KEPT = 4096


@dataclass(frozen=True)
class Vision:
    """One medium, ready: pixels, their grid (cells, height, width in patches), its tokens."""

    kind: str
    pixels: Tensor
    grid: Tensor
    token_ids: "np.ndarray[Any, Any]"
    seconds_per_cell: float = 0.0


@dataclass(frozen=True)
class ClipTimes:
    """A clip's times and limits, as the video processor is given them."""

    seconds: tuple[float, ...]
    """Of each frame, a last one that is repeated included."""
    total_seconds: float
    """Frames times their mean distance."""
    size: Mapping[str, int]
    """Pixel limits."""


@dataclass
class _TextOfTokens:
    """Token ids of the texts that stand for media, cached: few texts occur, each often."""

    tokenizer: Any
    ids: Any = field(init=False)

    def __post_init__(self) -> None:
        @lru_cache(_TOKEN_TEXTS_KEPT)
        def ids(text: str) -> "np.ndarray[Any, Any]":
            return np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"])

        self.ids = ids


class MediaProcessor:
    """Prepares the files of `loader` with a model's processor.

    Raises UsageError for a processor of no known family (`train.modeling.families`).
    """

    def __init__(self, processor: Any, loader: FrameLoader) -> None:
        self._processor = processor
        self._loader = loader
        self._family = processor_family(processor)
        self._patch = int(processor.video_processor.patch_size)
        self.frames_per_cell = int(processor.video_processor.temporal_patch_size)
        self.merge_size = int(processor.video_processor.merge_size)
        self._text = _TextOfTokens(processor.tokenizer)

    def most_tokens(self, ref: MediaRef) -> int:
        """The most tokens that a file of this kind can have, from the frame settings alone."""
        spec, side = self._loader.spec, self._patch * self.merge_size
        # A strip one token high is rounded up to that height and has more tokens than the cap.
        strip = ceil(sqrt(_MAX_ASPECT * spec.max_pixels) / side)
        per_cell = max(spec.max_pixels // side**2, strip)
        if ref.kind == "image":
            return per_cell
        per_cell += len(self._text.ids(self._family.cell_text))
        return -(-spec.max_frames // self.frames_per_cell) * per_cell

    def clip(self, frames: EncodedFrames) -> ClipTimes:
        """What `prepare` gives the video processor of a clip, for those who process it elsewhere.

        So another process that is given the same JPEGs and this makes the same tokens and pixels.
        """
        spare = -len(frames) % self.frames_per_cell
        distance = _frame_distance(frames.times, frames.duration_seconds)
        return ClipTimes(
            seconds=(*frames.times, *frames.times[-1:] * spare),
            total_seconds=(len(frames) + spare) * distance,
            size=self._size(len(frames) + spare if self._family.shares_clip_limit else 1),
        )

    @property
    def image_size(self) -> dict[str, int]:
        """The limits of pixels under which `prepare` gives pictures to the image processor."""
        return self._size(1)

    @property
    def video_options(self) -> Mapping[str, Any]:
        """Further options of the video processor, under which `prepare` calls it."""
        return self._family.video_options

    def prepare(self, refs: Sequence[MediaRef]) -> list[Vision]:
        """The media, in order. Clips of equal length go through the processor together.

        Raises MediaError that names the file.
        """
        decoded = [self._loader.load(ref) for ref in refs]
        for ref, medium in zip(refs, decoded, strict=True):
            _check_shape(ref, medium)
        order = sorted(range(len(refs)), key=lambda i: (decoded[i].kind, len(decoded[i])))
        result: dict[int, Vision] = {}
        for (kind, _), run in groupby(order, key=lambda i: (decoded[i].kind, len(decoded[i]))):
            places = list(run)
            prepare = self._videos if kind == "video" else self._images
            for place, vision in zip(places, prepare([decoded[i] for i in places]), strict=True):
                result[place] = vision
        return [result[place] for place in range(len(refs))]

    def _videos(self, clips: Sequence[DecodedMedia]) -> list[Vision]:
        """Clips of the same number of frames."""
        spare = -len(clips[0]) % self.frames_per_cell
        num_frames = len(clips[0]) + spare
        pixels = [_with_last_repeated(clip.pixels, spare) for clip in clips]
        metadata = [
            video_metadata(
                num_frames,
                [*clip.times_seconds, *clip.times_seconds[-1:] * spare],
                _distance_of(clip),
            )
            for clip in clips
        ]
        frames_counted = num_frames if self._family.shares_clip_limit else 1
        output = self._processor.video_processor(
            videos=pixels,
            video_metadata=metadata,
            do_sample_frames=False,
            input_data_format="channels_last",
            size=self._size(frames_counted),
            return_metadata=True,
            return_tensors="pt",
            **self._family.video_options,
        )
        grids = output["video_grid_thw"]
        patches = output["pixel_values_videos"].split(grids.prod(1).tolist())
        return [
            Vision(
                "video",
                patches[index],
                grids[index],
                self._text.ids(self._processor.replace_video_token(output, video_idx=index)),
                self.frames_per_cell / metadata[index].sampled_fps,  # as the processor's own call
            )
            for index in range(len(clips))
        ]

    def _images(self, pictures: Sequence[DecodedMedia]) -> list[Vision]:
        output = self._processor.image_processor(
            images=[picture.pixels[0] for picture in pictures],
            input_data_format="channels_last",
            size=self._size(1),
            return_tensors="pt",
        )
        grids = output["image_grid_thw"]
        patches = output["pixel_values"].split(grids.prod(1).tolist())
        return [
            Vision(
                "image",
                patches[index],
                grids[index],
                self._text.ids(self._processor.replace_image_token(output, image_idx=index)),
            )
            for index in range(len(pictures))
        ]

    def _size(self, frames_counted: int) -> dict[str, int]:
        """Pixel limits under which the processor rounds to whole tokens and does nothing else."""
        side = self._patch * self.merge_size
        return {
            "shortest_edge": side**2 * frames_counted,
            "longest_edge": max(self._loader.spec.max_pixels, side**2) * frames_counted,
        }


def _check_shape(ref: MediaRef, medium: DecodedMedia) -> None:
    _, height, width, _ = medium.pixels.shape
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise MediaError(
            Reason.UNDECODABLE,
            f"{ref.path!r}: its frames are {width}x{height}; processors take pictures of at most"
            f" 1:{_MAX_ASPECT}",
        )


def _distance_of(clip: DecodedMedia) -> float:
    return _frame_distance(clip.times_seconds, clip.duration_seconds)


def _frame_distance(times: Sequence[float], duration_seconds: float) -> float:
    """Seconds between neighbouring frames, on average; of a single frame, how long it lasts."""
    if len(times) > 1:
        return (times[-1] - times[0]) / (len(times) - 1)
    return duration_seconds or 1.0


def _with_last_repeated(pixels: "np.ndarray[Any, Any]", spare: int) -> "np.ndarray[Any, Any]":
    return np.concatenate([pixels, *[pixels[-1:]] * spare]) if spare else pixels
