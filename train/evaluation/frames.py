"""Frames for a model and for the page, as the options say. Needs no torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from media.sampling import FrameSpec
from schemas.config import UsageError
from train.evaluation.options import EvaluateConfig
from train.frame_loader import FrameLoader


@contextmanager
def frame_loader(config: EvaluateConfig) -> Iterator[FrameLoader]:
    """Frames of the files under --media-root. Raises UsageError where the options make no sense."""
    assert config.media_root is not None
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        loader = FrameLoader(
            config.media_root,
            spec=FrameSpec.parse(config.frames, config.max_pixels),
            cache_dir=config.frame_cache or cache_home / "p2r" / "frames",
            reader=config.video_reader,
            timeout_seconds=config.decode_timeout_seconds,
            workers=config.decode_workers,
            follow_symlinks=config.follow_symlinks,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    with loader:
        yield loader
