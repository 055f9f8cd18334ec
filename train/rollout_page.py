"""Rollouts to look at: what a step's groups wrote, where they looked, what they learn from it.

One HTML page that stands alone, after figures A to C of APPO's supplement (arXiv:2602.23823): of
each group the right rollouts beside the wrong ones; above them the frames with how much they were
looked at, the crucial ones framed; the tokens coloured by their weight and underlined by their
segment; rewards and advantages of each segment.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from schemas.pages import write_page
from schemas.questions import VideoQuestion
from train.appo import AppoConfig
from train.diagnostics import is_right
from train.frame_loader import FrameLoader
from train.rollout_groups import ScoredGroup
from train.rollout_views import LEVELS, shown_group
from train.segments import TokenBytes

TEMPLATE = Path(__file__).parent / "rollout_page.html.jinja"
STYLE = Path(__file__).parent / "rollout_page.css"


def write_rollout_page(
    path: Path,
    scored: Sequence[ScoredGroup],
    *,
    step: int,
    loader: FrameLoader,
    cell_seconds: Callable[[VideoQuestion], Sequence[float]],
    token_bytes: TokenBytes,
    config: AppoConfig | None = None,
    title: str = "",
) -> None:
    """Write the page of some groups of a step, those with right and wrong rollouts first.

    `cell_seconds` is `train.video_inputs.VideoInputs.cell_seconds`; `config` says which rollouts
    are right and how frames are scored. Media that cannot be read are told, not shown.
    """
    config = config or AppoConfig()
    shown = [
        shown_group(group, loader, cell_seconds, token_bytes, config)
        for group in sorted(scored, key=lambda group: not _has_contrast(group, config))
    ]
    heading = title or f"Rollouts of step {step:,}"
    write_page(
        path,
        TEMPLATE,
        {
            "heading": heading,
            "groups": shown,
            "has_weights": any(group.weights is not None for group in scored),
            "has_attention": any(group.frame_attention is not None for group in scored),
            "weights": [
                (level, f"{1 + (config.max_weight - 1) * level / LEVELS:.2f}")
                for level in range(LEVELS + 1)
            ],
            "levels": range(LEVELS + 1),
        },
        title=heading,
        style=STYLE.read_text(encoding="utf-8"),
    )


def _has_contrast(scored: ScoredGroup, config: AppoConfig) -> bool:
    right = is_right(scored.rewards.reasoning, config.reward_threshold)
    return any(right) and not all(right)
