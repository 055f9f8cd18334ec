"""TRL's own GRPOTrainer with our rewards and segment advantages, on a tiny model."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.judged_groups import QUESTION, RULES, asked, text_of
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import SIZE, Gradients, settings
from helpers.rollout_scenes import tokenizer
from PIL import Image
from reference.naive_advantages import naive_group_advantages
from servers.model_server import RunningServer
from torch import Tensor
from trl import GRPOTrainer

from cli.config import UsageError
from schemas.prompting import task_prompt
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.integrations.completion_rewards import question_column, read_reward_options
from train.integrations.rows import trl_row
from train.integrations.trl_rewards import SegmentAdvantages, TrlRewards
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.trl_imports import Dataset

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(300)]

OBSERVATIONS = ("the red box: ok", "poor", "mute")


class PaTrainer(SegmentAdvantages, GRPOTrainer):  # type: ignore[misc]
    """PA-GRPO, as the page shows it."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> RlWorld:
    return rl_world(tmp_path_factory.mktemp("images"), kind="image")


def trainer_of(
    world: RlWorld,
    folder: Path,
    base: type[GRPOTrainer],
    texts: Sequence[str],
    rewards: Sequence[Any],
    **more: Any,
) -> GRPOTrainer:
    """A trainer whose group always completes with `texts`, from prompts of our own rows."""
    rows = [
        trl_row(question, "p2r", [Image.fromarray(world.loader.load(question.media[0]).pixels[0])])
        for question in world.questions
    ]
    own, end = world.processor.tokenizer, world.processor.tokenizer.eos_token_id
    completions = [[*own(text)["input_ids"], end] for text in texts]
    prompt_ids = {
        task_prompt(question, "p2r").text: world.inputs.prompt(question)["input_ids"][0].tolist()
        for question in world.questions
    }

    def rollout(prompts: Sequence[Any], trainer: Any) -> Mapping[str, Any]:
        drawn = [completions[place % SIZE] for place in range(len(prompts))]
        return {
            "prompt_ids": [prompt_ids[prompt[0]["content"][-1]["text"]] for prompt in prompts],
            "completion_ids": drawn,
            "logprobs": None,
        }

    return base(
        world.model(),
        reward_funcs=list(rewards),
        args=settings(folder / "run", "grpo", **more),
        train_dataset=Dataset.from_list(rows),
        processing_class=world.processor,
        rollout_func=rollout,
    )


def advantages_of(trainer: Any) -> Tensor:
    """What the loss of the first micro-batch is given, [rows] or [rows, tokens]."""
    seen: list[Tensor] = []
    compute = trainer._compute_loss

    def watched(model: Any, inputs: Any) -> Any:
        seen.append(inputs["advantages"].clone())
        return compute(model, inputs)

    trainer._compute_loss = watched
    trainer.train()
    return seen[0]


def test_two_steps_with_a_judge_leave_a_missing_reward_out(
    images: RlWorld, model_server: RunningServer, tmp_path: Path
) -> None:
    """Every group: yes, no, unreadable. TRL's statistics are of the two that are there."""
    model_server.control(replies=RULES)
    options = read_reward_options(
        {
            "output_dir": tmp_path / "rewards",
            "judge": f"openai:judge@{model_server.openai_url}",
            "retries": 0,
            "length_weight": 0,
        }
    )
    rewards = TrlRewards(options, images.processor.tokenizer)
    texts = [text_of(observation, "A") for observation in OBSERVATIONS]
    trainer = trainer_of(
        images,
        tmp_path,
        GRPOTrainer,
        texts,
        [rewards.total],
        max_steps=2,
        shuffle_dataset=False,
    )
    advantages = advantages_of(trainer).sort().values
    rewards.close()
    expected = naive_group_advantages([4.0, 3.0, math.nan], SIZE, True, 1e-4)
    assert advantages.tolist() == pytest.approx(sorted(expected * 2), abs=1e-5)
    log = trainer.state.log_history
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]
    assert log[0]["rewards/total/mean"] == pytest.approx(3.5 if is_correct(images) else 2.5)
    assert log[0]["judge/missing"] == pytest.approx(1 / SIZE)
    questions = {row.question_id for row in images.questions}
    assert asked(model_server) <= 1 + len(questions) * SIZE  # all functions ask once


def is_correct(world: RlWorld) -> bool:
    """Whether `A` answers all questions of the world."""
    return all(question.solution == "A" for question in world.questions)


def test_two_functions_of_which_one_is_missing_are_summed_as_if_it_were_0(
    images: RlWorld, tmp_path: Path
) -> None:
    """Why a sum of ours is one function: TRL's `nansum`."""

    def some(completions: Sequence[Any], **_: Any) -> list[float | None]:
        return [1.0 if place % SIZE else None for place in range(len(completions))]

    def all_there(completions: Sequence[Any], **_: Any) -> list[float]:
        return [1.0] * len(completions)

    trainer = trainer_of(images, tmp_path, GRPOTrainer, ["a", "b", "c"], [some, all_there])
    expected = naive_group_advantages([1.0, 2.0, 2.0], SIZE, True, 1e-4)
    assert sorted(advantages_of(trainer).tolist()) == pytest.approx(sorted(expected * 2), abs=1e-5)


def test_pa_grpo_in_trl_learns_what_our_own_trainer_learns(images: RlWorld, tmp_path: Path) -> None:
    """The same completions and rewards, one of them missing: gradients within float32's sums."""
    fixed = images.rewards()
    for totals in fixed.totals.values():
        totals[1] = (None, totals[1][1])  # type: ignore[index]
    by_key = {question_column(each): fixed.totals[each.question_id] for each in images.questions}

    def function(name: str, part: int) -> Any:
        def reward(question: Sequence[str], **_: Any) -> list[float | None]:
            return [by_key[key][place % SIZE][part] for place, key in enumerate(question)]

        reward.__name__ = name
        return reward

    texts = [
        "<observation>a red square</observation> <think>so red</think><answer>A</answer>",
        "<observation>blue</observation> <think>it is blue</think><answer>B</answer>",
        "no tags at all",
    ]
    functions = [function("perception", 0), function("reasoning", 1)]
    seen = Gradients()
    trainer = trainer_of(images, tmp_path, PaTrainer, texts, functions, shuffle_dataset=False)
    trainer.add_callback(seen)
    advantages = advantages_of(trainer)
    assert advantages.ndim == 2
    assert (advantages != 0).any(dim=0).any()

    own, replay = Gradients(), images.replay(SIZE)
    words = images.processor.tokenizer
    ids = [torch.tensor([*words(text)["input_ids"], words.eos_token_id]) for text in texts]
    replay.completions = dict.fromkeys(replay.completions, ids)
    spec = parse_algo("pa-grpo")
    ours = VideoGRPOTrainer(
        images.model(),
        settings(tmp_path / "ours", "grpo", shuffle_dataset=False),
        images.rows,
        processor=images.processor,
        template=images.template,
        credit=CreditAssignment(spec, scale=spec.scale),
        rewarder=fixed,
        rollout_source=replay,
        callbacks=[own],
    )
    ours.train()
    largest = max(float(gradient.abs().max()) for gradient in own.of.values())
    assert largest > 0.005
    differences = [float((own.of[name] - seen.of[name]).abs().max()) for name in own.of]
    assert max(differences) < 1e-6


@pytest.mark.parametrize(
    ("names", "more", "sentence"),
    [
        (("perception", "other"), {}, "reasoning is not among perception, other"),
        (("perception", "reasoning"), {"scale_rewards": "batch"}, "scale_rewards='batch'"),
        (
            ("perception", "reasoning"),
            {"importance_sampling_level": "sequence"},
            "takes one advantage per rollout",
        ),
    ],
)
def test_settings_without_an_advantage_per_token_are_refused(
    images: RlWorld, tmp_path: Path, names: Sequence[str], more: dict[str, Any], sentence: str
) -> None:
    functions = []
    for name in names:

        def reward(completions: Sequence[Any], **_: Any) -> list[float]:
            return [0.0] * len(completions)

        reward.__name__ = name
        functions.append(reward)
    with pytest.raises(UsageError, match=sentence):
        trainer_of(images, tmp_path, PaTrainer, ["a", "b", "c"], functions, **more)


def test_a_dataset_without_questions_and_rewards_without_perception_are_named(
    tmp_path: Path,
) -> None:
    options = read_reward_options({"output_dir": tmp_path, "reward": ["accuracy"]})
    rewards = TrlRewards(options, tokenizer())
    ids = [tokenizer()(text_of("ok"), add_special_tokens=False)["input_ids"]]
    with pytest.raises(UsageError, match="has no column question"):
        rewards.total(completion_ids=ids)
    column = [question_column(QUESTION)]
    assert rewards.total(completion_ids=ids, question=column) == [1.0]
    with pytest.raises(UsageError, match="nothing rewards perception"):
        rewards.perception(completion_ids=ids, question=column)
    rewards.close()
