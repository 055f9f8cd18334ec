"""Renders clips: frames as arrays, and arrays as mp4 and png files."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sandbox.world.clips import PLACES, Clip, Thing, Word, WorldConfig

Frames = npt.NDArray[np.uint8]
_Image = npt.NDArray[np.int16]
_Mask = npt.NDArray[np.bool_]
_PAINT = {
    "red": (220, 40, 40),
    "blue": (40, 70, 225),
    "green": (40, 180, 60),
    "yellow": (235, 215, 50),
}
_CURTAIN, _CURTAIN_FOLD = (125, 125, 125), (95, 95, 95)


def render(clip: Clip, config: WorldConfig) -> Frames:
    """The frames of `clip` as uint8 [frames, height, width, 3]; a still has one frame."""
    is_still = clip.kind == "image"
    count = 1 if is_still else config.frames
    size = config.pixels
    frames = np.full((count, size, size, 3), 30, np.int16)
    # The backdrop shows the place and the clock bar the time: both can be read from the pixels.
    frames[:, size // 2 :, :, 1] += 35
    frames[:, :, size // 2 :, 2] += 45
    for i in range(count):
        cell = i // config.frames_per_cell
        if not is_still:
            bar = round((cell + 1) / config.cells * size)
            frames[i, -max(3, size // 20) :, :bar] = 128
        for thing in sorted(clip.things, key=lambda thing: thing.is_momentary):
            _paint_thing(frames[i], thing, cell, i % config.frames_per_cell, config)
        for word in clip.words:
            if word.enters <= cell < word.leaves:
                _paint_word(frames[i], word)
    return _with_noise(frames, clip.noise_seed, config.noise)


def _centre(place: str, thing: Thing, config: WorldConfig) -> tuple[float, float]:
    """Where a thing stands at a place: in its middle, or side by side with room for words below."""
    size, at = config.pixels, PLACES.index(place)
    x, y = size / 4 + size / 2 * (at % 2), size / 4 + size / 2 * (at // 2)
    if config.slots_per_place > 1:
        x, y = x + size / 8 * (2 * thing.slot - 1), y - size / 14
    return x + thing.dx, y + thing.dy


def _paint_thing(image: _Image, thing: Thing, cell: int, step: int, config: WorldConfig) -> None:
    """Paint `thing` as it is in frame `step` of `cell`."""
    if not thing.enters <= cell < thing.leaves:
        return
    x, y = _centre(thing.place, thing, config)
    if thing.deed == "moves" and cell >= thing.deed_cells[0]:
        goal_x, goal_y = _centre(thing.moves_to, thing, config)
        # It slides during the first half of the cell and stands at its goal in the second.
        share = min(1.0, 2 * (step + 1) / config.frames_per_cell)
        x, y = x + (goal_x - x) * share, y + (goal_y - y) * share
    dx, dy = _offsets(config.pixels)
    if cell not in thing.deed_cells or thing.deed == "moves":
        image[_mask(thing.shape, dx - x, dy - y, thing.radius)] = _PAINT[thing.colour]
    elif thing.deed == "hides":
        reach = thing.radius * 1.25
        curtain = (abs(dx - x) <= reach) & (abs(dy - y) <= reach)
        image[curtain] = _CURTAIN
        image[curtain & (np.floor(dx - x) % 4 == 0)] = _CURTAIN_FOLD


@cache
def _offsets(size: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    return columns, rows


def _mask(shape: str, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], r: float) -> _Mask:
    """Which pixels a shape of radius `r` covers, by their offsets from its centre."""
    if shape == "square":
        return np.asarray((abs(x) <= r * 0.9) & (abs(y) <= r * 0.9))
    if shape == "circle":
        return np.asarray(x * x + y * y <= r * r * 1.1)
    if shape == "triangle":
        return np.asarray((y <= r * 0.9) & (abs(x) <= (y + r) * 0.62) & (y >= -r))
    upright = (abs(x) <= r * 0.35) & (abs(y) <= r * 1.1)
    return np.asarray(upright | ((abs(y) <= r * 0.35) & (abs(x) <= r * 1.1)))


def _paint_word(image: _Image, word: Word) -> None:
    """White letters in the lower part of the word's place."""
    size, at = image.shape[0], PLACES.index(word.place)
    letters = _letters(word.text, size // 8)
    height, width = letters.shape
    x = size // 4 + size // 2 * (at % 2) - width // 2
    y = round(size * 0.385) + size // 2 * (at // 2) - height // 2
    part = image[y : y + height, x : x + width]
    part += ((245 - part) * (letters[:, :, None] / 255)).astype(np.int16)


@cache
def _letters(text: str, size: int) -> Frames:
    """`text` in Pillow's own font, cropped to its ink."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    canvas = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, fill=255, font=font)
    ink: Frames = np.frombuffer(canvas.tobytes(), np.uint8).reshape(canvas.height, canvas.width)
    return ink


@cache
def _noise_bank() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 1, 2_000_000).astype(np.float32)


def _with_noise(frames: _Image, seed: int, deviation: float) -> Frames:
    """Pixel noise, cut from one bank: drawing it anew for each clip would take most of the time."""
    bank, size = _noise_bank(), frames.size
    start = int(np.random.default_rng(seed).integers(0, len(bank) - size))
    noise = (bank[start : start + size] * deviation).round().astype(np.int16)
    noisy: Frames = np.clip(frames + noise.reshape(frames.shape), 0, 255).astype(np.uint8)
    return noisy


def write_video(path: Path, frames: Frames, *, fps: int, crf: int) -> None:
    """H.264 in mp4, one thread: the same frames give the same bytes."""
    import av

    with av.open(str(path), "w") as container:
        options = {"crf": str(crf), "preset": "veryfast", "bf": "0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_image(path: Path, frames: Frames) -> None:
    """The first frame as png."""
    from PIL import Image

    Image.fromarray(frames[0]).save(path)
