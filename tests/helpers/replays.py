"""Completions and rewards that are fixed beforehand, for trainers that take them from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from helpers.training_world import question, tiny_model_folder, write_clip, write_still
from torch import Tensor

from media.sampling import FrameSpec
from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.data.prompt_dataset import PromptDataset
from train.modeling.loading import load_policy, load_processor
from train.rewards.judge_health import JudgeUse
from train.rollouts.types import GroupRewards, RolloutGroup, SegmentReward

TRACES = (
    "<observation>a red square</observation> <think>so red</think><answer>A</answer>",
    "<observation>a blue circle moves</observation> <think>it is blue</think><answer>B</answer>",
    "<observation>red</observation> <think>I think that it must be red then</think>"
    "<answer>A</answer>",
    "no tags at all",
)


@dataclass
class Replay:
    """A rollout source: what each prompt is answered, in the order of its group."""

    completions: Mapping[tuple[int, ...], Sequence[Tensor]]
    seeds: list[int] = field(default_factory=list)

    def __call__(
        self, model: Any, prompts: Sequence[Mapping[str, Tensor]], *, group_size: int, **given: Any
    ) -> list[list[Tensor]]:
        self.seeds += given["seeds"]
        return [
            list(self.completions[tuple(prompt["input_ids"][0].tolist())])[:group_size]
            for prompt in prompts
        ]


@dataclass(frozen=True)
class Known:
    rewards: list[GroupRewards]
    use: JudgeUse = field(default_factory=JudgeUse)

    def wait(self) -> list[GroupRewards]:
        return self.rewards


@dataclass
class FixedRewards:
    """A reward source: (perception, reasoning) totals of a question's rollouts; None = missing."""

    totals: Mapping[str, Sequence[tuple[float | None, float]]]

    def ask_ahead(self, question: VideoQuestion, text: str) -> bool:
        return True

    def start(self, groups: Sequence[RolloutGroup]) -> Any:
        return Known([self._of(group) for group in groups])

    def _of(self, group: RolloutGroup) -> GroupRewards:
        totals = self.totals[group.question.question_id][: group.size]
        return GroupRewards(
            reasoning=tuple(earned(reasoning) for _, reasoning in totals),
            perception=tuple(earned(perception) for perception, _ in totals),
            verdicts=tuple(Sufficiency("yes") if p else Sufficiency("no") for p, _ in totals),
        )


def earned(total: float | None) -> SegmentReward:
    value = float("nan") if total is None else total
    return SegmentReward(value, 1.0, 0.0, value)


@dataclass
class RlWorld:
    """Questions about small files, a tiny model, completions and rewards of each question."""

    root: Path
    questions: list[VideoQuestion]
    loader: FrameLoader
    processor: Any
    family: str

    @property
    def template(self) -> Any:
        return TEMPLATES["p2r"]

    @property
    def inputs(self) -> VideoInputs:
        return VideoInputs(self.processor, self.loader, self.template)

    @property
    def rows(self) -> PromptDataset:
        return PromptDataset(self.questions, self.inputs.prompt)

    def model(self) -> Any:
        """A new copy in float32, the same each time."""
        return load_policy(tiny_model_folder(self.family), dtype="float32", device="cpu")

    def replay(self, group_size: int = 4) -> Replay:
        tokenizer, inputs = self.processor.tokenizer, self.inputs
        completions = {}
        for number, each in enumerate(self.questions):
            ids = tuple(inputs.prompt(each)["input_ids"][0].tolist())
            texts = [f"{TRACES[(number + i) % len(TRACES)]}" for i in range(group_size)]
            completions[ids] = [
                torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id])
                for text in texts
            ]
        return Replay(completions)

    def rewards(self, *, equal: bool = False, flat: bool = False) -> FixedRewards:
        """`equal`: perception earns what reasoning earns; `flat`: 0.9 for all of the first."""
        totals: dict[str, list[tuple[float | None, float]]] = {}
        for number, each in enumerate(self.questions):
            draw = torch.Generator().manual_seed(number)
            pairs = torch.rand(8, 2, generator=draw).round(decimals=2).tolist()
            totals[each.question_id] = [
                (reasoning if equal else perception, reasoning) for perception, reasoning in pairs
            ]
        if flat:
            totals[self.questions[0].question_id] = [(0.9, 0.9)] * 8
        return FixedRewards(totals)


def rl_world(
    root: Path, *, kind: str = "video", num: int = 4, family: str = "qwen2.5-vl"
) -> RlWorld:
    """`kind`: what the questions are about, "video" or "image"; "mixed" is a video, and for the
    first question a picture, too. Files that are there stay."""
    questions = []
    for number in range(num):
        names = [f"{number}.png" if kind == "image" else f"{number}.mp4"]
        if kind == "mixed" and number == 0:
            names.append("0.png")
        for name in names:
            write = write_still if name.endswith("png") else write_clip
            if not (root / name).exists():
                write(root / name, seed=number)
        questions.append(question(*names, problem=f"Which colour is number {number}?", row=number))
    spec = FrameSpec("uniform:6", max_pixels=56 * 56)
    loader = FrameLoader(root, spec=spec, cache_dir=None)
    return RlWorld(root, questions, loader, load_processor(tiny_model_folder(family)), family)
