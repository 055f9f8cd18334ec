"""The grounding task: times earn their IoU, in real seconds or as the released code counts them.

Where that code crashes or hangs, ours gives the rollout its own number; each such case is here.
"""

import time
from pathlib import Path

import pytest
import torch
from helpers.replays import rl_world
from helpers.rl_settings import Gradients, settings

from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.data.model_inputs import VideoInputs
from train.data.prompt_dataset import PromptDataset
from train.rewards.group_rewarder import GroupRewarder
from train.rewards.plan import plan_of
from train.rewards.published import grounding_weights
from train.rewards.registry import REWARDS
from train.rewards.segment_rewards import RewardConfig
from train.rollouts.segments import TokenBytes, rollouts_of
from train.rollouts.types import RolloutGroup
from train.trainers.grpo_trainer import VideoGRPOTrainer

QUESTION = VideoQuestion.model_validate(
    {
        "problem": "When?",
        "options": ("A. x", "B. y", "C. z"),
        "solution": "C",
        "media": ({"kind": "video", "path": "a.mp4"},),
        "problem_type": "multiple choice",
        "time_clues": ((13.8, 29.8),),
    }
)


def reward(name: str, times: str, clues: tuple[tuple[float, float], ...] = ()) -> float:
    question = QUESTION.model_copy(update={"time_clues": clues}) if clues else QUESTION
    text = f"<think>a</think> <answer>C</answer> <time>{times}</time>"
    found = REWARDS[name].function(question=question, completion=text, duration_seconds=90)
    return float(found)


@pytest.mark.parametrize(
    ("times", "seconds", "whole"),
    [
        ("13.8 to 29.8", 1.0, 1.0),
        ("13 to 29", 15.2 / 16.8, 1.0),  # 13.8 to 29 of 13 to 29.8
        ("14.5 to 14.9", 0.4 / 16, 0.0),  # no whole second
        ("13.8-29.8 s", 1.0, 0.0),  # a form that the released pattern does not know
        ("0:13.8 to 0:29.8", 1.0, 0.0),
        ("29.8 to 13.8", 0.0, 0.0),
        ("nowhere", 0.0, 0.0),
    ],
)
def test_time_iou_in_real_and_in_whole_seconds(times: str, seconds: float, whole: float) -> None:
    assert reward("time-iou", times) == pytest.approx(seconds)
    assert reward("next-gqa-tiou", times) == pytest.approx(whole, abs=1e-8)


@pytest.mark.parametrize("name", ["next-gqa-tiou", "time-iou"])
def test_a_huge_end_is_no_loop_over_seconds(name: str) -> None:
    """The released code walks through every second of it."""
    began = time.process_time()
    assert 0 <= reward(name, "0 to 999999999999999999999") < 0.2
    assert reward(name, "0 to " + "9" * 5000) < 0.2
    assert time.process_time() - began < 1


def test_a_clue_beyond_the_video_earns_a_number_for_each_rollout() -> None:
    """There its exception is printed and the rollout's entry is left out: the list is then too
    short for the table of rewards, or, with one entry left, gives it to all rollouts."""
    beyond = ((80.0, 120.0),)
    assert reward("next-gqa-tiou", "80 to 100", beyond) == pytest.approx(1, abs=1e-8)
    assert reward("next-gqa-tiou", "80 to 120", beyond) == pytest.approx(1, abs=1e-8)
    assert reward("next-gqa-tiou", "0 to 10", beyond) == 0
    assert reward("time-iou", "80 to 100", beyond) == pytest.approx(0.5)


def test_the_grounding_task_is_learned_from_its_times(tmp_path: Path) -> None:
    """Rollouts that differ in nothing but their times: the better ones become more probable."""
    world = rl_world(tmp_path, num=2)
    template = TEMPLATES["grounding"]
    clues = {"time_clues": ((1.0, 3.0),)}
    questions = [each.model_copy(update=clues) for each in world.questions]
    inputs = VideoInputs(world.processor, world.loader, template)
    assert (
        "The video is 4 seconds long, with 6 frames"
        in inputs.messages(questions[0])[0]["content"][-1]["text"]
    )
    tokenizer = world.processor.tokenizer
    texts = [
        f"<think>so</think> <answer>A</answer> <time>{times}</time>"
        for times in ("1 to 3", "0 to 1", "1 to 2")
    ]
    drawn = [torch.tensor([*tokenizer(text)["input_ids"], 2]) for text in texts]
    rewarder = GroupRewarder(
        template,
        RewardConfig(),
        None,
        plan=plan_of(grounding_weights(integer_seconds=False)),
    )
    rollouts = rollouts_of(drawn, TokenBytes(tokenizer), template, [2])
    (rewards,) = rewarder.start([RolloutGroup(questions[0], {}, rollouts)]).wait()
    assert [one.total for one in rewards.reasoning] == pytest.approx([2.1, 1.1, 1.6])

    seen, spec = Gradients(), parse_algo("dapo")
    trainer = VideoGRPOTrainer(
        world.model(),
        settings(tmp_path / "out", spec.name, learning_rate=0.01),
        PromptDataset(questions, inputs.prompt),
        processor=world.processor,
        template=template,
        credit=CreditAssignment(spec, scale=True),
        rewarder=rewarder,
        rollout_source=lambda model, prompts, **given: [drawn for _ in prompts],
        callbacks=[seen],
    )
    trainer.train()
    assert any(gradient.abs().max() > 0 for gradient in seen.of.values())
    world.loader.close()
