"""Time intervals in answers and how much two sets of them overlap."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from judges.scoring.text import plain_characters

Interval = tuple[float, float]

_MAX_CHARACTERS = 10_000
_TOKEN = re.compile(
    r"(?P<time>[0-9]+(?::[0-9]{2}){1,2}(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+)"
    r"|(?P<word>[^\W\d_]+)|(?P<mark>\S)",
    re.IGNORECASE,
)
_SECONDS = frozenset({"s", "sec", "secs", "second", "seconds"})
_CONNECTING_WORDS = frozenset({"to", "until", "till", "through"})
_OTHER_UNITS = frozenset(
    {
        "ms",
        "msec",
        "msecs",
        "millisecond",
        "milliseconds",
        "millis",
        "us",
        "µs",
        "ns",
        "microseconds",
    }
    | {"m", "min", "mins", "minute", "minutes", "h", "hr", "hrs", "hour", "hours", "day", "days"}
    | {
        "weeks",
        "months",
        "year",
        "years",
        "frame",
        "frames",
        "index",
        "indices",
        "%",
        "‰",
        "percent",
    }
    | {
        "pct",
        "shots",
        "scenes",
        "clips",
        "steps",
        "pages",
        "lines",
        "images",
        "pictures",
        "chapters",
    }
    | {
        "segments",
        "ticks",
        "samples",
        "beats",
        "k",
        "hundred",
        "thousand",
        "million",
        "half",
        "tenths",
    }
    | {"hundredths", "normalized", "normalised"}
    | {"minuten", "stunden", "bilder", "minutos", "horas", "heures", "trames", "minuti", "ore"}
    | {"minuut", "uur", "minuter", "timmar", "мин", "минут", "минуты", "минуту", "ч", "час", "часа"}
    | {
        "часов",
        "кадр",
        "кадры",
        "кадров",
        "мс",
        "dakika",
        "saat",
        "kare",
        "phút",
        "giờ",
        "menit",
        "jam",
    }
    | {"minut", "godzin", "klatek", "دقيقة", "دقائق", "ساعة", "मिनट", "घंटे", "घंटा", "फ्रेम"}
)
# Scripts that part no words: what begins with one of these is about minutes, hours or frames.
_OTHER_UNITS_AHEAD = re.compile("分|小时|小時|时|時|帧|幀|毫秒|フレーム|コマ|분|시간|프레임|밀리초")
_BEFORE_A_SPAN = frozenset(
    {
        "from",
        "between",
        "number",
        "numbers",
        "numbered",
        "no",
        "nos",
        "id",
        "ids",
        "range",
        "ranges",
    }
    | {
        "ranging",
        "spanning",
        "is",
        "are",
        "was",
        "were",
        "in",
        "of",
        "the",
        "at",
        "about",
        "around",
    }
    | {"roughly", "approximately", "approx", "ca"}
)
# Marks that end what a unit belongs to.
_PARTING = frozenset({",", ";", "-", "|", "/", "!", "?"})
_CHOOSING = frozenset({"or", "not", "oder", "nicht", "ou", "或", "または", "или", "не"})
_CLOSING = {"[": "]", "(": ")"}
# The published pattern and its rules; possessive and with a look-behind only to stay linear.
_PUBLISHED = re.compile(r"(?<![0-9])([0-9]++\.?[0-9]*+) to ([0-9]+\.?[0-9]*)", re.IGNORECASE)
_PUBLISHED_EPSILON = 1e-8
_FAR = 1e15  # seconds; no sum of a few such times overflows, and an int of it is exact


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def read_intervals(text: str) -> tuple[Interval, ...] | None:
    """The intervals that `text` states, in seconds, as written; None when anything is unclear.

    Read: `a to b`, `a - b`, `between a and b`, `[a, b]`, with or without `s`, times as seconds,
    `mm:ss` or `hh:mm:ss`, several joined by anything that is no number. A lone number, a time below
    0 or beyond 1e15, spans to choose from (`or`, `not`), or another unit than seconds, in front or
    behind, makes the whole text unreadable.
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    tokens = [
        _Token(match.lastgroup or "", match.group().casefold(), match.start(), match.end())
        for match in _TOKEN.finditer(plain_characters(text).replace("→", "-").replace("~", "-"))
    ]
    intervals: list[Interval] = []
    place = 0
    while place < len(tokens):
        if tokens[place].kind != "time":
            place += 1
            continue
        found = _interval_at(tokens, place)
        if found is None:
            return None
        interval, place = found
        intervals.append(interval)
    return tuple(intervals) or None


def _interval_at(tokens: list[_Token], place: int) -> tuple[Interval, int] | None:
    before = [token.text for token in tokens[max(0, place - 1) : place]]
    if before == ["-"] and tokens[place - 1].end == tokens[place].start:
        return None
    start = _seconds(tokens[place].text)
    link = _after_unit(tokens, place + 1)
    second = link + 1
    if second >= len(tokens) or tokens[second].kind != "time":
        return None
    end = _seconds(tokens[second].text)
    after = _after_unit(tokens, second + 1)
    closing = _CLOSING.get(before[0]) if before else None
    connector = tokens[link].text
    is_linked = (
        connector == "-"
        or connector in _CONNECTING_WORDS
        or (connector == "and" and before == ["between"])
        or (
            connector == ","
            and closing is not None
            and after < len(tokens)
            and tokens[after].text == closing
        )
    )
    says_seconds = after > second + 1
    in_front = _in_front(tokens, place)
    if (
        not is_linked
        or in_front in _CHOOSING
        or _has_other_unit_behind(tokens, after)
        or (not says_seconds and _is_other_unit(in_front))
        or start is None
        or end is None
    ):
        return None
    return (start, end), after


def _is_other_unit(word: str) -> bool:
    return word in _OTHER_UNITS or bool(_OTHER_UNITS_AHEAD.match(word))


def _in_front(tokens: list[_Token], place: int) -> str:
    """The word that a span belongs to: `frames` of `"frames": [30, 50]`, of `frames from 30`."""
    while place and (
        tokens[place - 1].text in _BEFORE_A_SPAN
        or (tokens[place - 1].kind == "mark" and tokens[place - 1].text not in _PARTING)
    ):
        place -= 1
    return tokens[place - 1].text if place else ""


def _has_other_unit_behind(tokens: list[_Token], after: int) -> bool:
    """`minutes` of `[3, 5] minutes`, of `3 to 5 (in minutes)`; also what touches the time: `5½`."""
    is_time = tokens[after - 1].kind == "time"
    if is_time and after < len(tokens) and tokens[after].start == tokens[after - 1].end:
        word = tokens[after].text
        if tokens[after].kind == "word" and (word.isascii() or word.isnumeric()):
            return True
    while after < len(tokens) and (
        (tokens[after].kind == "mark" and tokens[after].text not in _PARTING | {"%", "‰", "."})
        or (tokens[after].text in (",", "in") and _is_in(tokens[after : after + 2]))
    ):
        after += 1
    return after < len(tokens) and _is_other_unit(tokens[after].text)


def _is_in(tokens: list[_Token]) -> bool:
    """`, in` or `in minutes`."""
    words = [token.text for token in tokens]
    return words == [",", "in"] or (words[0] == "in" and _is_other_unit(words[-1]))


def _after_unit(tokens: list[_Token], place: int) -> int:
    is_unit = place < len(tokens) and tokens[place].text in _SECONDS
    return place + 1 if is_unit else place


def _seconds(text: str) -> float | None:
    *high, low = text.split(":")
    parts = [*map(float, high), float(low)]
    if any(part >= 60 for part in parts[1:]):
        return None
    seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return seconds if seconds <= _FAR else None


def merged(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    """The union as disjoint intervals in order. Reversed and empty intervals cover nothing."""
    union: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((start, end))
    return tuple(union)


def interval_iou(left: Sequence[Interval], right: Sequence[Interval]) -> float:
    """Intersection over union of the two unions, in real seconds; 0 when both are empty."""
    shared, either = _overlap(left, right)
    return min(1.0, shared / either) if either else 0.0


def published_iou(left: str, right: str, *, horizon_seconds: float = _FAR) -> float:
    """The IoU of the released grounding reward (APPO): whole seconds `[int(a), int(b))`, unions.

    It reads only `a to b` with single spaces and ignores signs. Seconds from `horizon_seconds` on
    do not exist (there: floor(duration) + 10). Deviation: measured, so that a huge end cannot hang.
    """
    shared, either = _overlap(
        tuple(_whole_seconds(left, horizon_seconds)), tuple(_whole_seconds(right, horizon_seconds))
    )
    return shared / (either + _PUBLISHED_EPSILON)


def _whole_seconds(text: str, horizon_seconds: float) -> Iterator[Interval]:
    for match in _PUBLISHED.finditer(text):
        start, end = (int(min(float(time), horizon_seconds, _FAR)) for time in match.groups())
        yield start, end


def _overlap(left: Sequence[Interval], right: Sequence[Interval]) -> tuple[float, float]:
    left, right = merged(left), merged(right)
    shared = 0.0
    i = j = 0
    while i < len(left) and j < len(right):
        shared += max(0.0, min(left[i][1], right[j][1]) - max(left[i][0], right[j][0]))
        if left[i][1] <= right[j][1]:
            i += 1
        else:
            j += 1
    return shared, _length(left) + _length(right) - shared


def _length(intervals: Sequence[Interval]) -> float:
    return sum(end - start for start, end in intervals)
