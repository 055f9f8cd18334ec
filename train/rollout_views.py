"""A group of rollouts as a page shows it: texts, classes of colour, pictures."""

import codecs
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judges.choices import Choice, chosen_letter, read_choices
from judges.sufficiency import correct_answer_text
from media.frames import MediaError
from schemas.questions import ProblemType, VideoQuestion
from train.appo import AppoConfig, frame_scores
from train.diagnostics import focus_gap, is_right
from train.frame_loader import FrameLoader
from train.rewards import SegmentReward
from train.rollout_groups import Rollout, ScoredGroup
from train.rollout_pictures import ShownCell, picture_uri, shown_cells
from train.rollout_records import ROLE_OF_SEGMENT, rollout_advantages
from train.segments import TokenBytes

LEVELS = 10  # of a colour scale; 0 is no colour


@dataclass(frozen=True)
class ShownToken:
    """A token with its classes and what is told when the pointer rests on it."""

    text: str
    classes: str
    told: str


@dataclass(frozen=True)
class ShownSegment:
    """What one segment of a rollout earned."""

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
    looks: str


@dataclass(frozen=True)
class ShownSide:
    """The right or the wrong rollouts of a group; `heat` is their mean share of each frame."""

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
    told: str
    complaint: str
    cells: tuple[ShownCell, ...]
    stills: tuple[str, ...]
    scale: str
    sides: tuple[ShownSide, ...]


def shown_group(
    scored: ScoredGroup,
    loader: FrameLoader,
    cell_seconds: Callable[[VideoQuestion], Sequence[float]],
    token_bytes: TokenBytes,
    config: AppoConfig,
) -> ShownGroup:
    """What the page shows of a group; a file that cannot be read is a complaint, not an error."""
    question = scored.group.question
    complaint, clips, times = "", [], list[float]()
    try:
        clips = [loader.load(ref) for ref in question.media]
        times = list(cell_seconds(question))
    except MediaError as error:
        complaint = str(error)
    crucial: list[bool] = [] if scored.crucial_frames is None else scored.crucial_frames.tolist()
    shares = _shares(scored, config)
    low, high = _range(shares)
    right = is_right(scored.rewards.reasoning, config.reward_threshold)
    rollouts = [
        _rollout(scored, place, token_bytes, config, times, shares, (low, high))
        for place in range(scored.group.size)
    ]
    sides = []
    for title, tone, side in (("Right", "good", True), ("Wrong", "bad", False)):
        places = [place for place, yes in enumerate(right) if yes is side]
        mean = _mean([shares[place] for place in places]) if shares and places else []
        sides.append(
            ShownSide(
                f"{title}: {len(places)} of {len(right)}",
                tone,
                tuple(rollouts[place] for place in places),
                tuple(_level(share, low, high) for share in mean),
            )
        )
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
        told=_told(scored, times, config),
        complaint=complaint,
        cells=shown_cells(clips, times, crucial),
        stills=tuple(picture_uri(clip.pixels[:1]) for clip in clips if clip.kind == "image"),
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
    rollout, advantages = scored.group.rollouts[place], rollout_advantages(scored, place)
    own = shares[place] if shares else ()
    most = max(range(len(own)), key=lambda frame: own[frame]) if own else None
    verdict, tone = _verdict(scored, place)
    return ShownRollout(
        name=f"rollout {place + 1}",
        verdict=verdict,
        verdict_tone=tone,
        segments=tuple(_segments(scored, place, advantages)),
        tokens=_tokens(scored, place, rollout, token_bytes, advantages, times, config),
        is_truncated=rollout.is_truncated,
        heat=tuple(_level(share, *limits) for share in own),
        shares=tuple(f"{100 * share:.1f}" for share in own),
        looks="" if most is None or not times else f"looks most at {times[most]:.1f} s",
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
    return tuple("missing" if math.isnan(value) else f"{value:.2f}" for value in values)


def _verdict(scored: ScoredGroup, place: int) -> tuple[str, str]:
    """What the judge said of the observation, and its tone."""
    if scored.rewards.perception is None:
        return "", ""
    verdict = scored.rewards.verdicts[place]
    if verdict is None:
        is_leak = scored.rewards.perception[place].format > 0
        return ("observation claims the answer" if is_leak else "observation malformed"), "bad"
    told = {"yes": ("observation sufficient", "good"), "no": ("observation insufficient", "bad")}
    unscored = (f"observation unscored: {verdict.unscored_reason}", "warn")
    return told.get(verdict.verdict, unscored)


def _tokens(
    scored: ScoredGroup,
    place: int,
    rollout: Rollout,
    token_bytes: TokenBytes,
    advantages: dict[str, float],
    times: Sequence[float],
    config: AppoConfig,
) -> tuple[ShownToken, ...]:
    weights: list[float] = [] if scored.weights is None else scored.weights[place].tolist()
    looks: list[int] = []
    if scored.frame_attention is not None:
        looks = scored.frame_attention[place].argmax(dim=-1).tolist()
    shown = []
    ids = rollout.token_ids.tolist()
    texts = _token_texts(ids, token_bytes)
    for number, (text, segment) in enumerate(zip(texts, rollout.segment_ids.tolist(), strict=True)):
        role = ROLE_OF_SEGMENT.get(segment, "")
        told, classes = [role] if role else [], ["t", role[:1]]
        if weights:
            weight = weights[number]
            classes.append(f"w{weight_level(weight, config.max_weight)}")
            told.append(f"weight {weight:.3f}")
        if role in advantages:
            told.append(f"advantage {advantages[role]:+.2f}")
        if looks and times:
            told.append(f"looks most at {times[looks[number]]:.1f} s")
        if not text:
            text, classes, told = "▪", [*classes, "none"], [*told, "no text (end token)"]
        shown.append(ShownToken(text, " ".join(filter(None, classes)), " · ".join(told)))
    return tuple(shown)


def weight_level(weight: float, max_weight: float) -> int:
    """The step of the colour scale for a weight: 0 for exactly 1, at least 1 above it."""
    if weight <= 1 or max_weight <= 1:
        return 0
    return min(LEVELS, max(1, math.ceil((weight - 1) / (max_weight - 1) * LEVELS - 1e-6)))


def _token_texts(token_ids: Sequence[int], token_bytes: TokenBytes) -> list[str]:
    """Text of each token; a character of several tokens stands at its last one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [
        decoder.decode(token_bytes[token_id], final=number == len(token_ids) - 1)
        for number, token_id in enumerate(token_ids)
    ]


def _shares(scored: ScoredGroup, config: AppoConfig) -> list[list[float]]:
    """Of each rollout, how its frame scores are shared out among the frames. [] without any."""
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


def _told(scored: ScoredGroup, times: Sequence[float], config: AppoConfig) -> str:
    parts = []
    if scored.crucial_frames is not None:
        chosen = scored.crucial_frames.tolist()
        parts.append(f"{sum(chosen)} of {len(chosen)} frames are crucial")
    if scored.frame_attention is not None and times:
        gap = focus_gap(scored, times, config)
        if gap is not None:
            parts.append(f"right and wrong rollouts focus {gap:.1f} s apart")
    if scored.weights is not None:
        mask = [len(one.token_ids) for one in scored.group.rollouts]
        weights = [w for row, n in zip(scored.weights.tolist(), mask, strict=True) for w in row[:n]]
        parts.append(f"mean weight {math.fsum(weights) / len(weights):.3f}")
    return " · ".join(parts)
