"""Our plugin for vLLM servers: clips as stored JPEGs, weights over gloo, positions of dense clips.

An entry point of the group `vllm.general_plugins` with the name p2r: where this project is
installed beside vLLM, every process of a server calls `register` (unless `VLLM_PLUGINS` leaves it
out). Written for vLLM 0.31. Nothing here is imported by a trainer.

`P2R_ROPE_POSITIONS=apart` in the server's environment gives Qwen2.5-VL the positions of
`train.rl --rope-positions apart`; without it they are vLLM's own, which are `released`.
"""

import io
import os
from typing import Any

import numpy as np
import torch
from PIL import Image

from train.rollouts.vllm.clip_format import LOADER, unpacked
from train.rollouts.vllm.gloo import BACKEND

POSITIONS_VARIABLE = "P2R_ROPE_POSITIONS"


def register() -> None:
    """Called by vLLM once or more in each of its processes."""
    _register_loader()
    _register_engine()
    if os.environ.get(POSITIONS_VARIABLE) == "apart":
        _keep_cells_apart()


def _register_loader() -> None:
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

    @VIDEO_LOADER_REGISTRY.register(LOADER)
    class StoredFrames(VideoLoader):  # type: ignore[misc]
        """Clips of `train.rollouts.vllm.clip_format`; nothing is sampled again."""

        @classmethod
        def load_bytes(cls, data: bytes, num_frames: int = -1, **_: Any) -> Any:
            """Frames uint8 [N, H, W, 3], and the metadata that the processor computes times of."""
            clip = unpacked(data)
            frames = np.stack([_pixels(jpeg) for jpeg in clip.jpegs])
            return frames, {
                "total_num_frames": clip.total_seconds,
                "fps": 1.0,
                "duration": None,
                "frames_indices": list(clip.seconds),
                "video_backend": LOADER,
                "do_sample_frames": False,
            }


def _pixels(jpeg: bytes) -> "np.ndarray[Any, Any]":
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def _register_engine() -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(
            BACKEND, "train.rollouts.vllm.gloo_engine", "GlooEngine"
        )


def _keep_cells_apart() -> None:
    from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration as Model

    def positions(self: Any, input_tokens: list[int], mm_features: Any) -> tuple[Any, int]:
        found = apart_positions(len(input_tokens), list(self.iter_mm_grid_thw(mm_features)))
        return torch.from_numpy(found), int(found.max()) + 1 - len(input_tokens)

    Model.get_mrope_input_positions = positions


def apart_positions(
    length: int, media: list[tuple[int, int, int, int, float]]
) -> "np.ndarray[Any, Any]":
    """Positions [3, length] of a prompt in which no two cells of a clip share one.

    `media` as vLLM lists them: first token, cells, rows and columns of tokens, positions per cell.
    The same as `train.modeling.rope_positions` with `apart`.
    """
    parts: list[Any] = []
    done = start = 0
    for offset, cells, height, width, step in media:
        text = offset - done
        times: list[int] = []
        for cell in range(cells):
            place = int(cell * step)
            times.append(max(place, times[-1] + 1) if times else place)
        grid = np.indices((cells, height, width))
        grid[0] = np.array(times)[:, None, None]
        parts += [_text(start, text), grid.reshape(3, -1) + start + text]
        start = int(parts[-1].max()) + 1
        done = offset + cells * height * width
    parts.append(_text(start, length - done))
    return np.concatenate(parts, axis=1)


def _text(start: int, length: int) -> "np.ndarray[Any, Any]":
    return np.broadcast_to(np.arange(length), (3, length)) + start
