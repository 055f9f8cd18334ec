"""The page of rollouts: a step's completions, their attention, rewards and advantages.

One self-contained HTML file, after figures A to C of APPO's supplement (arXiv:2602.23823). It shows
for each group the correct rollouts beside the wrong ones; above them the frames with the attention
that they received, crucial ones framed; tokens coloured by weight and underlined by segment; and
the rewards and advantages of each segment.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cli.html_page import ByteBudget, FacetNumbers, write_page
from schemas.questions import VideoQuestion
from train.algorithms.appo import AppoConfig
from train.data.frame_loader import FrameLoader
from train.monitoring.rollout_index import INDEX, NEXT_PAGE, page_before
from train.monitoring.rollout_tokens import LEVELS
from train.monitoring.rollout_views import shown_group
from train.rollouts.segments import TokenBytes
from train.rollouts.types import ScoredGroup, is_correct

TEMPLATE = Path(__file__).parent / "rollout_page.html.jinja"
STYLE = Path(__file__).parent / "rollout_page.css"
_MAX_BYTES = 60e6


def write_rollout_page(
    path: Path,
    scored: Sequence[ScoredGroup],
    *,
    step: int,
    loader: FrameLoader,
    cell_seconds: Callable[[VideoQuestion], Sequence[float]],
    token_bytes: TokenBytes,
    config: AppoConfig | None = None,
    max_bytes: float = _MAX_BYTES,
) -> None:
    """Write the page of some groups of a step, those with correct and wrong rollouts first.

    `cell_seconds` is `train.data.model_inputs.VideoInputs.cell_seconds`; `config` has the threshold
    of correct rollouts and the settings of frame scores. A medium that cannot be read is replaced
    by the reason; frames take at most `max_bytes`.
    """
    config = config or AppoConfig()
    room = ByteBudget(max_bytes)
    shown = [
        shown_group(group, loader, cell_seconds, token_bytes, config, room)
        for group in sorted(scored, key=lambda group: not _has_contrast(group, config))
    ]
    types = FacetNumbers()
    for group in shown:
        types.number(group.question.problem_type.value)
    heading = f"Rollouts of step {step:,}"
    write_page(
        path,
        TEMPLATE,
        {
            "heading": heading,
            "groups": shown,
            "types": types.numbers,
            "index": INDEX,
            "before": page_before(path.parent, step),
            "next_page": NEXT_PAGE,
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
    correct = is_correct(scored.rewards.reasoning, config.reward_threshold)
    return any(correct) and not all(correct)
