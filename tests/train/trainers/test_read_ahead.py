"""Files of the next step are read while this one computes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.replays import rl_world
from helpers.rl_settings import SIZE, settings
from torch import Tensor

from schemas.questions import MediaRef, VideoQuestion
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.data.prompt_dataset import PromptDataset
from train.trainers.grpo_trainer import VideoGRPOTrainer

pytestmark = pytest.mark.heavy


def test_the_next_steps_files_are_asked_for_before_this_step_is_drawn(tmp_path: Path) -> None:
    """Two groups a step, each file asked for once and before the step that goes before its own."""
    world, events = rl_world(tmp_path, num=8), []

    def prompt_of(question: VideoQuestion) -> Mapping[str, Tensor]:
        events.append(("taken", question.media[0].path))
        return world.inputs.prompt(question)

    def prefetch(refs: Iterable[MediaRef]) -> None:
        events.extend(("asked for", ref.path) for ref in refs)

    spec, more = parse_algo("dapo"), {"gradient_accumulation_steps": 2, "max_steps": 4}
    options: dict[str, Any] = more | {"per_device_train_batch_size": SIZE}
    VideoGRPOTrainer(
        world.model(),
        settings(tmp_path / "out", spec.name, **options),
        PromptDataset(world.questions, prompt_of, prefetch=prefetch),
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(spec, scale=spec.scale),
        rewarder=world.rewards(),
        rollout_source=world.replay(SIZE),
    ).train()
    world.loader.close()
    taken = [path for kind, path in events if kind == "taken"]
    assert len(taken) == 8
    for number, path in enumerate(taken):
        asked = events.index(("asked for", path))
        step_before = taken[max(0, number // 2 * 2 - 2)]
        assert asked < events.index(("taken", step_before)), path
    assert sum(kind == "asked for" for kind, _ in events) <= 9, "the first is looked at by TRL"
