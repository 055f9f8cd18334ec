"""Statistics for the data card, read from the ledger and from the written dataset."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.exports.parquet_files import count_words, dataset_id, distinct
from pipeline.options import MAY_CHANGE_ON_RESUME
from schemas.answer_options import duplicate_options
from schemas.ledger.ledger import FunnelRow, Ledger, SpendRow
from schemas.samples import CALL_ERRORS, MEDIA_ERRORS, Reason, Step

NUM_LISTED_FAILURES = 50
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SEGMENTS = ("observation", "think", "answer")

# Input and output locations do not influence the rows that come out.
_LOCATIONS = frozenset(
    {"questions", "media_root", "output_dir", "strip_prefix", "follow_symlinks", "format", "plugin"}
)
_READER_SETTINGS = frozenset(
    {
        "blind_filter",
        "blind_samples",
        "blind_correct",
        "blind_action",
        "sufficiency",
        "sufficiency_margin",
    }
)
# Settings keep the names under which dataset ids have been computed.
_CARD_NAMES = {"video_decoder": "reader", "retries": "judge_retries"}

REASON_MEANINGS: Mapping[Reason, str] = {
    Reason.UNREADABLE_ROW: "the row is not JSON, or not an object",
    Reason.INVALID_QUESTION: "a field is missing, of a wrong type, or makes no sense",
    Reason.DUPLICATE: "the same question stands earlier in the file",
    Reason.UNSAFE_PATH: "the path is absolute or climbs out of the media folder",
    Reason.SYMLINK_OUTSIDE_ROOT: "the path is a link out of the media folder",
    Reason.MISSING_FILE: "there is no such file",
    Reason.NOT_A_FILE: "the path is a folder, pipe or device",
    Reason.EMPTY_FILE: "the file is empty",
    Reason.UNDECODABLE: "the file cannot be decoded, or breaks on the way",
    Reason.NO_FRAMES: "the file has no frames",
    Reason.BAD_TIMES: "frame times are missing or do not increase",
    Reason.TOO_LARGE: "the picture is larger than the limit",
    Reason.DECODE_TIMEOUT: "decoding took longer than the limit",
    Reason.DECODER_DIED: "the decoder crashed on the file",
    Reason.CALL_FAILED: "the server did not answer, after all retries",
    Reason.BAD_REQUEST: "the server refused the request for good",
    Reason.REFUSED: "the model refused",
    Reason.TRUNCATED: "the reply hit the token limit each time",
    Reason.EMPTY_REPLY: "the reply was empty each time",
    Reason.MALFORMED_TRACE: "the trace breaks the tag grammar",
    Reason.LOW_SCORE: "the answer scores below the threshold",
    Reason.ANSWERABLE_BLIND: "a text reader answers the question without the video",
    Reason.INSUFFICIENT: "the observation does not support the answer",
    Reason.ANSWER_LEAK: "the observation states the answer as such",
    Reason.UNSCORED: "the replies of the judge or reader decide nothing",
}


class Share(NamedTuple):
    """Questions asked and kept, of one source or type."""

    name: str
    asked: int
    kept: int


class RejectionCount(NamedTuple):
    """Number of questions that one step rejected for one reason."""

    step: str
    reason: str
    meaning: str
    questions: int


class SegmentLengths(NamedTuple):
    """Words per row in one segment; `quantiles` fit `QUANTILES` and are empty without rows."""

    name: str
    words: tuple[int, ...]
    mean: float
    quantiles: tuple[int, ...]


class Teacher(NamedTuple):
    """One generator with one prompt and one frame setting; `traces` counts its attempts."""

    generator: str
    prompt_id: str
    frame_spec: str
    traces: int
    asked: int
    kept: int


class JudgeReplies(NamedTuple):
    """Replies of one judge with one prompt, by verdict."""

    judge: str
    prompt_id: str | None
    yes: int
    no: int
    unscored: int


class BlindReader(NamedTuple):
    """What one text reader with one prompt answered without the video, in questions.

    `kept` are in the dataset, `kept_answerable` of them with the mark `answerable_blind`.
    """

    reader: str
    prompt_id: str
    samples: int
    asked: int
    answerable: int
    unscored: int
    kept: int
    kept_answerable: int
    mean_rate: float


class DecodedMedia(NamedTuple):
    """Media files of one kind that one decoder read; durations in seconds."""

    kind: str
    reader: str
    files: int
    shortest: float
    median: float
    longest: float
    most_frames: int


class Failure(NamedTuple):
    """A question that was lost to its media or to a call."""

    row: int
    problem_id: str
    step: str
    reason: str
    detail: str


class RunRow(NamedTuple):
    """One run of the ledger; times are UTC, `versions` and `config` JSON texts."""

    run_id: str
    command: str
    started_at: datetime
    ended_at: datetime | None
    exit_status: int | None
    commit: str | None
    dirty: bool | None
    versions: str
    config: str


@dataclass(frozen=True)
class CardStatistics:
    """Everything that the card prints. Counts are of questions unless noted otherwise."""

    dataset_id: str
    settings: dict[str, Any]
    num_asked: int
    num_kept: int
    num_open: int
    stages: tuple[tuple[str, int], ...]
    rejections: tuple[RejectionCount, ...]
    by_source: tuple[Share, ...]
    by_type: tuple[Share, ...]
    media_kinds: frozenset[str]
    lengths: tuple[SegmentLengths, ...]
    teachers: tuple[Teacher, ...]
    judges: tuple[JudgeReplies, ...]
    blind_readers: tuple[BlindReader, ...]
    num_leaks: int
    num_equal_options: int
    decoded: tuple[DecodedMedia, ...]
    spend: tuple[SpendRow, ...]
    failures: tuple[Failure, ...]
    num_failures: int
    runs: tuple[RunRow, ...]
    versions: dict[str, str]
    is_scripted: bool

    @property
    def num_not_used(self) -> int:
        """Rejected questions; those without an outcome yet are not counted."""
        return sum(rejection.questions for rejection in self.rejections)


_ASKED = "SELECT data_source, problem_type, count(*) FROM questions GROUP BY ALL"
_TEACHERS = """
SELECT generator, prompt_id,
       CASE WHEN json_extract(questions.media, '$[0].start') IS NULL THEN frame_spec
            ELSE 'one for each clip' END AS frames,
       count(*), count(DISTINCT attempts.question_id),
       count(*) FILTER (EXISTS (
           SELECT 1 FROM accepted
           WHERE accepted.question_id = attempts.question_id AND accepted.draw = attempts.draw
       ))
FROM attempts JOIN questions USING (question_id) GROUP BY generator, prompt_id, frames
ORDER BY generator, prompt_id, frames
"""
_JUDGES = """
SELECT judge, prompt_id, count(*) FILTER (verdict = 'yes'), count(*) FILTER (verdict = 'no'),
       count(*) FILTER (verdict = 'unscored')
FROM sufficiency_verdicts WHERE verdict IS NOT NULL
GROUP BY judge, prompt_id ORDER BY judge, prompt_id
"""
_BLIND_READERS = """
SELECT reader, prompt_id, max(samples), count(*), count(*) FILTER (verdict = 'yes'),
       count(*) FILTER (verdict = 'unscored'), count(accepted.question_id),
       count(accepted.question_id) FILTER (verdict = 'yes'), avg(rate)
FROM reader_checks LEFT JOIN accepted USING (question_id)
WHERE evidence = 'none' GROUP BY reader, prompt_id ORDER BY reader, prompt_id
"""
_LEAKS = "SELECT count(DISTINCT question_id) FROM sufficiency_verdicts WHERE answer_leak"
_KEPT_OPTIONS = """
SELECT options, count(*) FROM questions SEMI JOIN accepted USING (question_id)
WHERE problem_type = 'multiple choice' GROUP BY options
"""
_DECODED = """
SELECT kind, coalesce(reader, ''), count(DISTINCT media_id), min(duration_seconds),
       median(duration_seconds), max(duration_seconds), max(len(frame_indices))
FROM media GROUP BY kind, reader ORDER BY kind DESC, reader
"""
_FAILURES = """
SELECT "row", problem_id, step, reason, detail FROM rejections JOIN questions USING (question_id)
WHERE reason IN (SELECT unnest(?)) ORDER BY "row", question_id LIMIT ?
"""
_RUNS = """
SELECT run_id, command, started_at, ended_at, exit_status, "commit", dirty, versions, config
FROM runs ORDER BY started_at, run_id
"""


def collect_statistics(ledger: Ledger, dataset_folder: Path) -> CardStatistics:
    """Read everything that the card needs; `dataset_folder` is what `export_dataset` wrote."""
    asked = ledger.query(_ASKED)
    funnel = ledger.funnel()
    num_asked = sum(count for *_, count in asked)
    num_kept = sum(row.count for row in funnel if row.step == "accepted")
    rejections = _rejections(funnel)
    num_open = num_asked - num_kept - sum(item.questions for item in rejections)
    runs = tuple(RunRow(*row) for row in ledger.query(_RUNS))
    settings = _settings(json.loads(runs[-1].config))
    teachers = tuple(Teacher(*row) for row in ledger.query(_TEACHERS))
    judges = tuple(JudgeReplies(*row) for row in ledger.query(_JUDGES))
    readers = tuple(BlindReader(*row) for row in ledger.query(_BLIND_READERS))
    failing = sorted(reason.value for reason in MEDIA_ERRORS | CALL_ERRORS)
    failures = ledger.query(_FAILURES, [failing, NUM_LISTED_FAILURES])
    ((num_leaks,),) = ledger.query(_LEAKS)
    return CardStatistics(
        dataset_id=dataset_id(dataset_folder, settings),
        settings=settings,
        num_asked=num_asked,
        num_kept=num_kept,
        num_open=num_open,
        stages=_stages(num_asked, rejections, num_open, is_read_blind=bool(readers)),
        rejections=rejections,
        by_source=_shares([(source, count) for source, _, count in asked], funnel, "data_source"),
        by_type=_shares([(kind, count) for _, kind, count in asked], funnel, "problem_type"),
        media_kinds=frozenset("+".join(distinct(dataset_folder, "data_type")).split("+")),
        lengths=tuple(_lengths(name, count_words(dataset_folder, name)) for name in SEGMENTS),
        teachers=teachers,
        judges=judges,
        blind_readers=readers,
        num_leaks=num_leaks,
        num_equal_options=_num_equal_options(ledger.query(_KEPT_OPTIONS)),
        decoded=tuple(DecodedMedia(*row) for row in ledger.query(_DECODED)),
        spend=tuple(ledger.spend()),
        failures=tuple(Failure(*row) for row in failures),
        num_failures=sum(item.questions for item in rejections if item.reason in failing),
        runs=runs,
        versions=json.loads(runs[-1].versions),
        is_scripted=any(source.startswith("sandbox/") for source, *_ in asked)
        or any(teacher.generator.startswith("oracle:") for teacher in teachers)
        or any(judge.judge.startswith("oracle:") for judge in judges)
        or any(reader.reader.startswith("oracle:") for reader in readers),
    )


def _rejections(funnel: Sequence[FunnelRow]) -> tuple[RejectionCount, ...]:
    """Rejections in the order of the steps, the most frequent reason of a step first."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in funnel:
        if row.step != "accepted":
            counts[row.step, row.reason] += row.count
    order = {step.value: place for place, step in enumerate(Step)}
    return tuple(
        RejectionCount(step, reason, REASON_MEANINGS[Reason(reason)], count)
        for (step, reason), count in sorted(
            counts.items(), key=lambda item: (order[item[0][0]], -item[1], item[0][1])
        )
    )


def _stages(
    num_asked: int,
    rejections: Sequence[RejectionCount],
    num_open: int,
    *,
    is_read_blind: bool,
) -> tuple[tuple[str, int], ...]:
    """How many questions were left after each step; open questions are subtracted last."""
    names = {
        Step.READ: "readable question",
        Step.MEDIA: "frames decoded",
        **({Step.BLIND: "not rejected as answerable blind"} if is_read_blind else {}),
        Step.GENERATE: "trace generated",
        Step.VERIFY: "answer verified",
        Step.FILTER: "observation sufficient",
    }
    left = num_asked
    stages = [("rows read", left)]
    for step, name in names.items():
        left -= sum(item.questions for item in rejections if item.step == step.value)
        stages.append((name, left))
    if num_open:
        stages.append(("accepted so far", left - num_open))
    return tuple(stages)


def _shares(
    asked: Sequence[tuple[str, int]], funnel: Sequence[FunnelRow], column: str
) -> tuple[Share, ...]:
    """Asked and kept per value of a column, the largest first."""
    num_asked: Counter[str] = Counter()
    for name, count in asked:
        num_asked[name] += count
    num_kept: Counter[str] = Counter()
    for row in funnel:
        if row.step == "accepted":
            num_kept[getattr(row, column)] += row.count
    shares = [Share(name, count, num_kept[name]) for name, count in num_asked.items()]
    return tuple(sorted(shares, key=lambda share: (-share.asked, share.name)))


def _num_equal_options(kept: Sequence[tuple[str, int]]) -> int:
    """Kept questions with two options of one text, of `(options as JSON, questions)`."""
    return sum(count for options, count in kept if duplicate_options(json.loads(options)))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what a row becomes; those of a text reader where there is one."""
    unused = frozenset() if config.get("blind_filter") else _READER_SETTINGS
    deciding = {
        _CARD_NAMES.get(name, name): value
        for name, value in config.items()
        if name not in MAY_CHANGE_ON_RESUME | _LOCATIONS | unused
    }
    return dict(sorted(deciding.items()))


def _lengths(name: str, counts: Sequence[int]) -> SegmentLengths:
    """Word statistics of one segment.

    A quantile is an observed value: the smallest with at least that share at or below it.
    """
    ordered = sorted(counts)
    if not ordered:
        return SegmentLengths(name, (), 0.0, ())
    last = len(ordered) - 1
    quantiles = tuple(
        ordered[min(last, max(0, ceil(share * len(ordered)) - 1))] for share in QUANTILES
    )
    return SegmentLengths(name, tuple(counts), sum(ordered) / len(ordered), quantiles)
