"""Frames and clips of a page's rows: small pictures in the page, links to the files beside it."""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cli.html_page import ByteBudget, ShownMedium, shown_medium, spread_places
from media.encoding import small_jpeg
from media.frames import MediaError
from media.playback import plays_in_browser
from media.store import FrameStore
from schemas.questions import MediaRef

FRAMES_SHOWN = 8
_HEIGHT = 108  # pixels
_AT_ONCE = 8  # media that are decoded or held whole at a time


@dataclass(frozen=True)
class ShownClip:
    """A medium on a page; `source` is the address of a file that browsers play, or empty."""

    medium: ShownMedium
    source: str


class ClipFolder:
    """The media of a build, as pages in `pages` show and link them.

    Frames are those that the teacher saw, at most `FRAMES_SHOWN` of them, evenly spread. Without
    `frames` only names are shown, with the reason `why_not`.
    """

    def __init__(
        self,
        frames: FrameStore | None,
        root: Path | None,
        pages: Path,
        *,
        follow_symlinks: bool,
        why_not: str = "",
    ) -> None:
        self._frames, self._why_not = frames, why_not
        self._root = None if root is None else Path(os.path.realpath(root))
        self._pages = pages
        self._follow_symlinks = follow_symlinks

    def shown(self, refs: Iterable[MediaRef], max_bytes: float) -> "PageClips":
        """The media of one page, decoded together; their frames take at most `max_bytes`."""
        wanted = list(dict.fromkeys(refs))
        clips = asyncio.run(self._load_all(wanted))
        return PageClips(dict(zip(wanted, clips, strict=True)), ByteBudget(max_bytes))

    async def _load_all(self, refs: list[MediaRef]) -> list[ShownClip]:
        room = asyncio.Semaphore(_AT_ONCE)

        async def load(ref: MediaRef) -> ShownClip:
            async with room:
                return ShownClip(await self._medium(ref), self._source(ref))

        return list(await asyncio.gather(*map(load, refs)))

    async def _medium(self, ref: MediaRef) -> ShownMedium:
        if self._frames is None:
            return ShownMedium(ref.path, complaint=self._why_not)
        try:
            encoded = await self._frames.load(ref)
        except MediaError as error:
            return ShownMedium(ref.path, complaint=str(error))
        places = spread_places(len(encoded), FRAMES_SHOWN)
        jpegs = [small_jpeg(encoded.jpegs[place], max_height=_HEIGHT) for place in places]
        size = f"{encoded.source_width}x{encoded.source_height}"
        if encoded.kind == "image":
            return shown_medium(ref.path, jpegs, times=None, facts=size)
        seen = f"{len(places)} of the {len(encoded)} frames that the teacher saw"
        return shown_medium(
            ref.path,
            jpegs,
            times=[encoded.times[place] for place in places],
            facts=f"{encoded.duration_seconds:.1f} s, {size}, {seen}",
        )

    def _source(self, ref: MediaRef) -> str:
        """The clip's address, relative to the pages; empty where a browser cannot play it."""
        root = self._root
        if ref.kind != "video" or root is None:
            return ""
        if not plays_in_browser(root, ref.path, follow_symlinks=self._follow_symlinks):
            return ""
        there = os.path.relpath(root / ref.path, os.path.realpath(self._pages))
        fragment = "#t={:g},{:g}".format(*ref.span) if ref.span else ""
        return quote(there.replace(os.sep, "/")) + fragment


class PageClips:
    """The media of one page, while it has room for their frames."""

    def __init__(self, clips: dict[MediaRef, ShownClip], room: ByteBudget) -> None:
        self._clips, self._room = clips, room

    def of(self, refs: Iterable[MediaRef]) -> tuple[ShownClip, ...]:
        """The media of a row, in their order."""
        found = (self._clips[ref] for ref in refs)
        return tuple(ShownClip(self._room.fit(one.medium), one.source) for one in found)

    @property
    def has_room(self) -> bool:
        """Whether all frames so far did fit."""
        return self._room.has_room
