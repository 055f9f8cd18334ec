"""A group of rollouts as its page shows it: texts, colours, frames."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.html_page import ByteBudget, ShownFrame, ShownMedium, shown_medium
from judges.scoring.choices import Choice, chosen_letter, read_choices
from judges.sufficiency import correct_answer_text
from media.encoding import thumbnail
from media.frames import MediaError
from schemas.questions import ProblemType, VideoQuestion
from train.algorithms.appo import AppoConfig, frame_scores
from train.algorithms.appo_weighting import focus_gap
from train.data.frame_loader import DecodedMedia, FrameLoader
from train.monitoring.attention_map import AttentionMap, attention_map
from train.monitoring.rollout_records import ROLE_OF_SEGMENT, rollout_advantages
from train.monitoring.rollout_tokens import LEVELS, ShownToken, shown_tokens
from train.rollouts.segments import TokenBytes
from train.rollouts.types import ScoredGroup, SegmentReward, is_correct

_FRAME_WIDTH = 160  # pixels at most


@dataclass(frozen=True)
class ShownSegment:
    """Rewards and advantage of one segment of a rollout."""

    role: str
    terms: tuple[str, ...]
    advantage: str
    tone: str
    tokens: str


@dataclass(frozen=True)
class ShownRollout:
    """A rollout as the template prints it. `heat` and `shares` have one entry for each frame."""

    name: str
    verdict: str
    verdict_tone: str
    segments: tuple[ShownSegment, ...]
    tokens: tuple[ShownToken, ...]
    is_truncated: bool
    heat: tuple[int, ...]
    shares: tuple[str, ...]
    attends: str
    named: str
    """Values of the rewards of --reward."""
    map: AttentionMap | None


@dataclass(frozen=True)
class ShownSide:
    """The correct or the wrong rollouts of a group; `heat` is their mean share of each frame."""

    title: str
    tone: str
    rollouts: tuple[ShownRollout, ...]
    heat: tuple[int, ...]


@dataclass(frozen=True)
class ShownGroup:
    """A group as the template prints it."""

    question: VideoQuestion
    choices: tuple[tuple[Choice, bool], ...]
    gold: str
    about: str
    summary: str
    complaint: str
    cells: tuple[ShownFrame, ...]
    """The temporal cells of its videos, one video after another."""
    crucial: tuple[bool, ...]
    """Which cells are crucial."""
    stills: tuple[ShownFrame, ...]
    scale: str
    sides: tuple[ShownSide, ...]
    """The correct rollouts, then the wrong ones."""

    @property
    def outcome(self) -> str:
        """Whether its rollouts are `correct`, `wrong`, or `both`."""
        correct, wrong = (bool(side.rollouts) for side in self.sides)
        return "both" if correct and wrong else "correct" if correct else "wrong"


def shown_group(
    scored: ScoredGroup,
    loader: FrameLoader,
    cell_seconds: Callable[[VideoQuestion], Sequence[float]],
    token_bytes: TokenBytes,
    config: AppoConfig,
    room: ByteBudget,
) -> ShownGroup:
    """A group for the page, its frames while there is `room` for them.

    A file that cannot be read is a complaint on the page, not an error.
    """
    question = scored.group.question
    complaint, clips, times = "", [], list[float]()
    try:
        clips = [loader.load(ref) for ref in question.media]
        times = list(cell_seconds(question))
    except MediaError as error:
        complaint = str(error)
    crucial = [False] * len(times)
    if scored.crucial_frames is not None:
        crucial = scored.crucial_frames.tolist()
    shares = _shares(scored, config)
    low, high = _range(shares)
    correct = is_correct(scored.rewards.reasoning, config.reward_threshold)
    rollouts = [
        _rollout(scored, place, token_bytes, config, times, shares, (low, high))
        for place in range(scored.group.size)
    ]
    sides = []
    for title, tone, side in (("Correct", "good", True), ("Wrong", "bad", False)):
        places = [place for place, yes in enumerate(correct) if yes is side]
        mean = _mean([shares[place] for place in places]) if shares and places else []
        sides.append(
            ShownSide(
                f"{title}: {len(places)} of {len(correct)}",
                tone,
                tuple(rollouts[place] for place in places),
                tuple(_level(share, low, high) for share in mean),
            )
        )
    # A group's film is repeated above each side that has rollouts.
    num_films = sum(bool(side.rollouts) for side in sides)
    films = [room.fit(_film(clips, times)) for _ in range(num_films)]
    stills = room.fit(_stills(clips))
    return ShownGroup(
        question=question,
        choices=_choices(question),
        gold=correct_answer_text(question),
        about=" · ".join(
            part
            for part in (
                question.problem_type.value,
                question.data_source,
                *(ref.path for ref in question.media),
            )
            if part
        ),
        summary=_summary(scored, times, config),
        complaint=complaint or films[-1].complaint or stills.complaint,
        cells=films[-1].frames,
        crucial=tuple(crucial),
        stills=stills.frames,
        scale=f"{low:.1%} … {high:.1%}" if shares else "",
        sides=tuple(sides),
    )


def _rollout(
    scored: ScoredGroup,
    place: int,
    token_bytes: TokenBytes,
    config: AppoConfig,
    times: Sequence[float],
    shares: Sequence[Sequence[float]],
    limits: tuple[float, float],
) -> ShownRollout:
    advantages = rollout_advantages(scored, place)
    own = shares[place] if shares else ()
    most = max(range(len(own)), key=lambda frame: own[frame]) if own else None
    verdict, tone = _verdict(scored, place)
    return ShownRollout(
        name=f"rollout {place + 1}",
        verdict=verdict,
        verdict_tone=tone,
        segments=tuple(_segments(scored, place, advantages)),
        tokens=shown_tokens(scored, place, token_bytes, advantages, times, config),
        is_truncated=scored.group.rollouts[place].is_truncated,
        heat=tuple(_level(share, *limits) for share in own),
        shares=tuple(f"{100 * share:.1f}" for share in own),
        attends="" if most is None or not times else f"attends most to {times[most]:.1f} s",
        named=" · ".join(
            f"{name} {_value(values[place])}" for name, values in scored.rewards.named.items()
        ),
        map=attention_map(scored, place),
    )


def _segments(scored: ScoredGroup, place: int, advantages: dict[str, float]) -> list[ShownSegment]:
    rewards = scored.rewards
    shown = []
    for role, earned in (
        ("perception", None if rewards.perception is None else rewards.perception[place]),
        ("reasoning", rewards.reasoning[place]),
    ):
        if earned is None:
            continue
        advantage = advantages.get(role)
        number = {name: number for number, name in ROLE_OF_SEGMENT.items()}[role]
        shown.append(
            ShownSegment(
                role=role,
                terms=_terms(earned),
                advantage="no tokens" if advantage is None else f"{advantage:+.2f}",
                tone="" if not advantage else "good" if advantage > 0 else "bad",
                tokens=str(int((scored.group.rollouts[place].segment_ids == number).sum())),
            )
        )
    return shown


def _terms(reward: SegmentReward) -> tuple[str, ...]:
    values = (reward.accuracy, reward.format, reward.length, reward.total)
    return tuple(map(_value, values))


def _value(reward: float) -> str:
    return "missing" if math.isnan(reward) else f"{reward:.2f}"


def _verdict(scored: ScoredGroup, place: int) -> tuple[str, str]:
    """The judge's verdict on the observation, and its tone."""
    if scored.rewards.perception is None:
        return "", ""
    verdict = scored.rewards.verdicts[place]
    if verdict is None:
        is_leak = scored.rewards.perception[place].format > 0
        return ("observation claims the answer" if is_leak else "observation malformed"), "bad"
    scored_verdicts = {
        "yes": ("observation sufficient", "good"),
        "no": ("observation insufficient", "bad"),
    }
    unscored = (f"observation unscored: {verdict.unscored_reason}", "warn")
    return scored_verdicts.get(verdict.verdict, unscored)


def _film(clips: Sequence[DecodedMedia], times: Sequence[float]) -> ShownMedium:
    """The temporal cells of the videos, each with its frames one under another."""
    videos = [clip for clip in clips if clip.kind == "video"]
    if not videos or not times:
        return ShownMedium("")
    per_cell = _frames_per_cell(videos, len(times))
    pictures = [
        thumbnail(clip.pixels[first : first + per_cell], max_width=_FRAME_WIDTH)
        for clip in videos
        for first in range(0, len(clip), per_cell)
    ]
    return shown_medium("", pictures, times=times)


def _stills(clips: Sequence[DecodedMedia]) -> ShownMedium:
    images = [clip.pixels[0] for clip in clips if clip.kind == "image"]
    pictures = [thumbnail(image, max_width=_FRAME_WIDTH) for image in images]
    return shown_medium("", pictures, times=None)


def _frames_per_cell(videos: Sequence[DecodedMedia], num_cells: int) -> int:
    """How many frames the model merges into one cell: found from their numbers."""
    for per_cell in range(1, max(map(len, videos)) + 1):
        if sum(-(-len(clip) // per_cell) for clip in videos) == num_cells:
            return per_cell
    raise ValueError(
        f"{[len(clip) for clip in videos]} frames cannot make {num_cells} temporal cells"
    )


def _shares(scored: ScoredGroup, config: AppoConfig) -> list[list[float]]:
    """Of each rollout, the share of each frame in its frame scores; [] without frame attention."""
    if scored.frame_attention is None:
        return []
    scores = frame_scores(scored.frame_attention, config.score_tokens)
    shares: list[list[float]] = (scores / scores.sum(dim=1, keepdim=True)).nan_to_num().tolist()
    return shares


def _range(shares: Sequence[Sequence[float]]) -> tuple[float, float]:
    values = [share for row in shares for share in row]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _level(share: float, low: float, high: float) -> int:
    return round((share - low) / (high - low) * LEVELS) if high > low else 0


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def _choices(question: VideoQuestion) -> tuple[tuple[Choice, bool], ...]:
    if question.problem_type is not ProblemType.MULTIPLE_CHOICE:
        return ()
    gold = chosen_letter(question.solution, question.options)
    return tuple((choice, choice.letter == gold) for choice in read_choices(question.options))


def _summary(scored: ScoredGroup, times: Sequence[float], config: AppoConfig) -> str:
    parts = []
    if scored.crucial_frames is not None:
        chosen = scored.crucial_frames.tolist()
        parts.append(f"{sum(chosen)} of {len(chosen)} frames are crucial")
    if scored.frame_attention is not None and times:
        gap = focus_gap(scored, times, config)
        if gap is not None:
            parts.append(f"correct and wrong rollouts focus {gap:.1f} s apart")
    if scored.weights is not None:
        mask = [len(one.token_ids) for one in scored.group.rollouts]
        weights = [w for row, n in zip(scored.weights.tolist(), mask, strict=True) for w in row[:n]]
        parts.append(f"mean weight {math.fsum(weights) / len(weights):.3f}")
    return " · ".join(parts)
