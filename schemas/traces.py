"""Traces: what a model writes, cut into tagged segments by a strict grammar.

One parser serves the builder, the rewards and the evaluation. A trace is well formed when each tag
of its template opens and closes exactly once, in order, none nested, every segment says something,
and only white space stands outside the segments. Tags are case-sensitive; text that looks like a
tag of another name (`<b>`, `<THINK>`) is ordinary text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Segment:
    """One tagged part of a trace and the process whose rewards it earns."""

    tag: str
    role: Literal["perception", "reasoning"]

    @property
    def opening(self) -> str:
        """`<tag>`."""
        return f"<{self.tag}>"

    @property
    def closing(self) -> str:
        """`</tag>`."""
        return f"</{self.tag}>"


@dataclass(frozen=True)
class TraceTemplate:
    """Ordered segments. `separators[i]` is what `render_trace` writes between segments i, i + 1."""

    name: str
    segments: tuple[Segment, ...]
    separators: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.separators) != len(self.segments) - 1 or "".join(self.separators).strip():
            raise ValueError(
                f"template {self.name!r} has {len(self.segments)} segments and needs one white"
                f"-space separator between each two of them, got {self.separators!r}"
            )

    @cached_property
    def tag_pattern(self) -> re.Pattern[str]:
        """Any opening or closing tag of the template."""
        return re.compile("</?(?:" + "|".join(re.escape(s.tag) for s in self.segments) + ")>")


TEMPLATES: dict[str, TraceTemplate] = {
    template.name: template
    for template in (
        TraceTemplate(
            "p2r",
            (
                Segment("observation", "perception"),
                Segment("think", "reasoning"),
                Segment("answer", "reasoning"),
            ),
            (" ", ""),
        ),
        TraceTemplate(
            "think-answer",
            (Segment("think", "reasoning"), Segment("answer", "reasoning")),
            ("",),
        ),
        TraceTemplate(
            "grounding",
            (
                Segment("think", "reasoning"),
                Segment("answer", "reasoning"),
                Segment("time", "reasoning"),
            ),
            (" ", " "),
        ),
    )
}


class TraceFault(StrEnum):
    """The closed list of ways in which a text is no trace."""

    STRAY_TEXT = "stray_text"  # something other than white space outside the segments
    MISSING_TAG = "missing_tag"  # a segment's opening tag is nowhere in the text
    UNCLOSED_TAG = "unclosed_tag"  # opened, never closed
    UNOPENED_TAG = "unopened_tag"  # closed, never opened
    DUPLICATE_TAG = "duplicate_tag"  # opened or closed a second time
    WRONG_ORDER = "wrong_order"
    NESTED_TAG = "nested_tag"  # a tag of the template inside a segment
    EMPTY_SEGMENT = "empty_segment"  # nothing but white space between opening and closing tag


class TraceError(ValueError):
    """The text is no trace: the first fault's reason, and its place as a character offset."""

    def __init__(self, reason: TraceFault, position: int, what: str) -> None:
        super().__init__(reason, position, what)
        self.reason = reason
        self.position = position
        self.what = what

    def __str__(self) -> str:
        return f"{self.reason.value} at character {self.position}: {self.what}"


@dataclass(frozen=True)
class Trace:
    """A well-formed trace: `texts` are the segments' inner texts, verbatim, in template order."""

    template: TraceTemplate
    texts: tuple[str, ...]

    def get(self, tag: str) -> str:
        """The text of segment `tag` without surrounding white space."""
        for segment, text in zip(self.template.segments, self.texts, strict=True):
            if segment.tag == tag:
                return text.strip()
        tags = ", ".join(segment.tag for segment in self.template.segments)
        raise KeyError(f"template {self.template.name!r} has segments {tags}, not {tag!r}")


@dataclass(frozen=True)
class SegmentSpan:
    """The place of a segment in a text: `[start, end)` with its tags, `inner_*` without."""

    tag: str
    role: Literal["perception", "reasoning"]
    start: int
    end: int
    inner_start: int
    inner_end: int


def parse_trace(text: str, template: TraceTemplate) -> Trace:
    """Cut `text` into the segments of `template`, or raise `TraceError` at its first fault."""
    position = 0
    texts: list[str] = []
    tags = template.tag_pattern.finditer(text)
    for index, segment in enumerate(template.segments):
        opening = next(tags, None)
        _refuse_stray_text(text, position, opening.start() if opening else len(text))
        if opening is None:
            raise TraceError(
                TraceFault.MISSING_TAG, len(text), f"the text ends without {segment.opening}"
            )
        if opening.group() != segment.opening:
            raise _wrong_tag_outside(text, opening, template.segments, index)
        closing = next(tags, None)
        if closing is None or closing.group() != segment.closing:
            raise _wrong_tag_inside(text, opening, closing, segment)
        inner = text[opening.end() : closing.start()]
        if not inner or inner.isspace():
            raise TraceError(
                TraceFault.EMPTY_SEGMENT,
                opening.end(),
                f"nothing stands between {segment.opening} and {segment.closing}",
            )
        texts.append(inner)
        position = closing.end()
    extra = next(tags, None)
    _refuse_stray_text(text, position, extra.start() if extra else len(text))
    if extra is not None:
        raise TraceError(
            TraceFault.DUPLICATE_TAG,
            extra.start(),
            f"a second {extra.group()} after the last segment",
        )
    return Trace(template, tuple(texts))


def _refuse_stray_text(text: str, start: int, end: int) -> None:
    between = text[start:end]
    stray = between.lstrip()
    if stray:
        raise TraceError(
            TraceFault.STRAY_TEXT,
            end - len(stray),
            f"{_excerpt(stray)} stands outside the segments, where only white space may stand",
        )


def _wrong_tag_outside(
    text: str, found: re.Match[str], segments: Sequence[Segment], index: int
) -> TraceError:
    """The fault of a tag found where segment `index` should open."""
    expected = segments[index].opening
    tag = found.group()
    done = segments[:index]
    if any(tag in (segment.opening, segment.closing) for segment in done):
        return TraceError(
            TraceFault.DUPLICATE_TAG, found.start(), f"a second {tag}, expected {expected}"
        )
    if tag.startswith("</"):
        opening = tag.replace("/", "", 1)
        return TraceError(TraceFault.UNOPENED_TAG, found.start(), f"{tag} without {opening} before")
    if text.find(expected, found.end()) < 0:
        return TraceError(
            TraceFault.MISSING_TAG, found.start(), f"{tag} where {expected} was expected"
        )
    return TraceError(TraceFault.WRONG_ORDER, found.start(), f"{tag} stands before {expected}")


def _wrong_tag_inside(
    text: str, opening: re.Match[str], found: re.Match[str] | None, segment: Segment
) -> TraceError:
    """The fault of a segment whose next tag is not its own closing tag."""
    if found is None or text.find(segment.closing, found.end()) < 0:
        return TraceError(
            TraceFault.UNCLOSED_TAG,
            opening.start(),
            f"{segment.opening} has no {segment.closing} after it",
        )
    return TraceError(
        TraceFault.NESTED_TAG,
        found.start(),
        f"{found.group()} inside the {segment.tag} segment",
    )


def render_trace(trace: Trace) -> str:
    """The trace as text. Texts that would not parse back to the same trace raise `TraceError`."""
    template = trace.template
    parts: list[str] = []
    for segment, text, separator in zip(
        template.segments, trace.texts, (*template.separators, ""), strict=True
    ):
        parts += (segment.opening, text, segment.closing, separator)
    rendered = "".join(parts)
    parse_trace(rendered, template)
    return rendered


def segment_spans(text: str, template: TraceTemplate) -> tuple[SegmentSpan, ...]:
    """The well-formed segments of `text`, in order, whatever befell the others.

    A segment counts when each of its two tags occurs exactly once, no tag of the template stands
    between them, it is not empty, and it stands in its place: every tag of an earlier segment
    before it, every tag of a later one after it. Text outside the segments is not looked at, so a
    text may have all its spans and still be no trace.
    """
    tags = list(template.tag_pattern.finditer(text))
    earlier: set[str] = set()
    spans: list[SegmentSpan] = []
    for segment in template.segments:
        own = [tag for tag in tags if tag.group() in (segment.opening, segment.closing)]
        if [tag.group() for tag in own] == [segment.opening, segment.closing]:
            opening, closing = own
            in_place = all(
                tag.start() < opening.start()
                if tag.group() in earlier
                else tag.start() > closing.start()
                for tag in tags
                if tag not in own
            )
            inner_start, inner_end = opening.end(), closing.start()
            inner = text[inner_start:inner_end]
            if in_place and inner and not inner.isspace():
                place = (opening.start(), closing.end(), inner_start, inner_end)
                spans.append(SegmentSpan(segment.tag, segment.role, *place))
        earlier |= {segment.opening, segment.closing}
    return tuple(spans)


def _excerpt(text: str, length: int = 40) -> str:
    return repr(text if len(text) <= length else text[:length] + "...")
