"""With the same rollouts and rewards, the update is TRL's own where TRL is right: on images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.replays import FixedRewards, RlWorld, rl_world
from helpers.rl_settings import SIZE, Gradients, settings
from PIL import Image
from torch import Tensor
from trl import GRPOTrainer

from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.trl_imports import Dataset

pytestmark = pytest.mark.heavy


def learned(trainer: Any, gradients: Gradients) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the first update."""
    trainer.train()
    return trainer.state.log_history[0]["loss"], gradients.of


def ours(
    world: RlWorld,
    folder: Path,
    algo: str,
    rewards: FixedRewards,
    *,
    credit: Any = None,
    **more: Any,
) -> tuple[float, dict[str, Tensor]]:
    seen, spec = Gradients(), parse_algo(algo)
    trainer = VideoGRPOTrainer(
        world.model(),
        settings(folder / "ours", algo, **more),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=credit or CreditAssignment(spec, scale=spec.scale),
        rewarder=rewards,
        rollout_source=world.replay(SIZE),
        callbacks=[seen],
    )
    return learned(trainer, seen)


def stock(
    world: RlWorld, folder: Path, algo: str, rewards: FixedRewards, **more: Any
) -> tuple[float, dict[str, Tensor]]:
    """TRL's own trainer, its completions and rewards replayed."""
    seen, replay, inputs = Gradients(), world.replay(SIZE), world.inputs
    ids = {
        question.question_id: inputs.prompt(question)["input_ids"][0].tolist()
        for question in world.questions
    }
    texts = [inputs.messages(question)[0]["content"][-1]["text"] for question in world.questions]
    rows = [
        {
            "prompt": [{"role": "user", "content": text}],
            "image": Image.fromarray(world.loader.load(question.media[0]).pixels[0]),
            "key": question.question_id,
        }
        for text, question in zip(texts, world.questions, strict=True)
    ]
    by_text = {row["prompt"][0]["content"]: row["key"] for row in rows}

    def rollout(prompts: Sequence[Any], trainer: Any) -> Mapping[str, Any]:
        keys = [by_text[prompt[0]["content"][-1]["text"]] for prompt in prompts]
        drawn = [
            replay.completions[tuple(ids[key])][place % SIZE].tolist()
            for place, key in enumerate(keys)
        ]
        return {
            "prompt_ids": [ids[key] for key in keys],
            "completion_ids": drawn,
            "logprobs": None,
        }

    def reward(key: Sequence[str], **_: Any) -> list[float]:
        return [rewards.totals[name][place % SIZE][1] for place, name in enumerate(key)]

    trainer = GRPOTrainer(
        world.model(),
        reward_funcs=reward,
        args=settings(folder / "stock", algo, **more),
        train_dataset=Dataset.from_list(rows),
        processing_class=world.processor,
        rollout_func=rollout,
        callbacks=[seen],
    )
    return learned(trainer, seen)


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Between gradients whose largest is some 0.1."""
    assert max(float(gradient.abs().max()) for gradient in other.values()) > 0.005
    return max(float((one[name] - other[name]).abs().max()) for name in other)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> RlWorld:
    return rl_world(tmp_path_factory.mktemp("images"), kind="image")


@pytest.mark.parametrize("algo", ["grpo", "dapo", "dr-grpo"])
def test_loss_and_gradients_are_trls_own(images: RlWorld, tmp_path: Path, algo: str) -> None:
    """1e-6: float32, and TRL shuffles the rollouts before it sums over them."""
    rewards = images.rewards()
    loss, gradients = ours(images, tmp_path, algo, rewards)
    expected_loss, expected = stock(images, tmp_path, algo, rewards)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert largest_difference(gradients, expected) < 1e-6


def test_a_flat_group_teaches_nothing_where_trl_learns_from_rounding(
    images: RlWorld, tmp_path: Path
) -> None:
    """The documented difference: the mean of three times 0.9 is not 0.9 in float32."""
    rewards = FixedRewards({each.question_id: [(0.9, 0.9)] * SIZE for each in images.questions})
    _, gradients = ours(images, tmp_path, "dapo", rewards)
    assert all(not gradient.any() for gradient in gradients.values())
    _, of_trl = stock(images, tmp_path, "dapo", rewards)
    assert any(gradient.any() for gradient in of_trl.values())


def test_equal_rewards_on_both_segments_make_pa_grpo_grpo(images: RlWorld, tmp_path: Path) -> None:
    rewards = images.rewards(equal=True)
    loss, gradients = ours(images, tmp_path, "pa-grpo", rewards)
    expected_loss, expected = ours(images, tmp_path, "grpo", rewards)
    assert loss == expected_loss
    assert largest_difference(gradients, expected) == 0
    _, other = ours(images, tmp_path, "pa-grpo", images.rewards())
    assert largest_difference(other, expected) > 1e-2, "the rewards of perception have no effect"


def test_weights_of_at_most_1_change_nothing(tmp_path: Path) -> None:
    """On clips: frames of pictures do not count, and APPO wants frames."""
    clips = rl_world(tmp_path, kind="video")
    spec, rewards = parse_algo("pa-dapo+appo"), clips.rewards()

    def weighted(max_weight: float, beta: float = 0.0) -> dict[str, Tensor]:
        appo = AppoConfig(tokens_per_frame=4, max_weight=max_weight)
        credit = CreditAssignment(spec, scale=True, weighting=AppoWeighting.of(appo))
        return ours(clips, tmp_path, spec.name, rewards, credit=credit, beta=beta)[1]

    _, plain = ours(clips, tmp_path, "pa-dapo", rewards)
    assert largest_difference(weighted(1.0), plain) == 0
    assert largest_difference(weighted(1.7), plain) > 1e-3
