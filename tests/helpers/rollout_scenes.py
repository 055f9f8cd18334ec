"""Groups of rollouts about clips of the sandbox: written by its teacher, scored by a tiny model."""

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from judges.backends.base import ChatRequest, TextPart
from judges.backends.registry import BackendOptions, open_backend
from media.sampling import FrameSpec
from sandbox import clips
from sandbox.models.tiny_models import TinySize, build_processor, build_qwen2_5_vl
from sandbox.models.tiny_tokenizer import build_tokenizer, random_text
from schemas.annotations.reader import read_questions
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, TraceTemplate
from train.algorithms.appo import AppoConfig
from train.algorithms.appo_weighting import AppoWeighting
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.modeling.packed_forward import PromptGroup, group_logprobs
from train.rewards.group_rewarder import GroupRewarder
from train.rollouts.segments import TokenBytes, rollouts_of
from train.rollouts.types import RolloutGroup, ScoredGroup

P2R = TEMPLATES["p2r"]
TEACHER = "oracle:3,wrong=0.4,insufficient=0.1,malformed=0.1,leak=0.1"


def render_world(folder: Path, *, clips_: int = 6, questions: int = 12) -> list[VideoQuestion]:
    """A small world of 4-second clips under `folder`, and the questions about it."""
    options = ["--clips", str(clips_), "--stills", "0", "--questions", str(questions)]
    assert clips.main(["--output-dir", str(folder), "--preset", "tiny", *options]) == 0
    read = read_questions(folder / "questions.json", format="video-r1")
    return [question for question in read if isinstance(question, VideoQuestion)]


def written(
    root: Path, question: VideoQuestion, count: int, *, teacher: str = TEACHER, first: int = 0
) -> list[str]:
    """So many completions of the sandbox's teacher for one question."""

    async def ask() -> list[str]:
        backend = await open_backend(teacher, BackendOptions(media_root=root))
        replies = [
            await backend.complete(
                ChatRequest(
                    parts=(TextPart(task_prompt(question, "p2r").text),),
                    max_tokens=1000,
                    draw=draw,
                    question_id=question.question_id,
                )
            )
            for draw in range(first, first + count)
        ]
        return [reply.text for reply in replies]

    return asyncio.run(ask())


@cache
def tokenizer() -> Any:
    """A small byte-level one, quickly trained: shared, do not change it."""
    return build_tokenizer(random_text(200), vocab_size=1024)


@cache
def token_bytes() -> TokenBytes:
    return TokenBytes(tokenizer())


def rollout_group(
    question: VideoQuestion,
    texts: Sequence[str],
    *,
    prompt: Any = None,
    template: TraceTemplate = P2R,
) -> RolloutGroup:
    """The texts as completions that ended by themselves."""
    import torch

    end = tokenizer().eos_token_id
    ids = [
        torch.tensor([*tokenizer()(text, add_special_tokens=False)["input_ids"], end])
        for text in texts
    ]
    rollouts = rollouts_of(ids, token_bytes(), template, [end])
    return RolloutGroup(question, prompt or {}, rollouts)


class Scene:
    """A loader over the world, a tiny random model, and what follows from them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loader = FrameLoader(
            root, spec=FrameSpec.parse("uniform:8", 56 * 56), cache_dir=None, workers=1
        )
        self.inputs = VideoInputs(build_processor(tokenizer()), self.loader, P2R)
        size = TinySize(width=64, layers=3, weight_std=0.15)
        self.model = build_qwen2_5_vl(tokenizer(), size)

    def scored(
        self,
        questions: Sequence[VideoQuestion],
        rewarder: GroupRewarder,
        *,
        algo: str = "pa-grpo+appo",
        config: AppoConfig | None = None,
        size: int = 6,
    ) -> list[ScoredGroup]:
        """Groups with rewards, and with advantages, attention and weights of the model's pass."""
        spec = parse_algo(algo)
        config = config or AppoConfig(score_tokens=5, frames_per_rollout=1, tokens_per_frame=12)
        weighting = AppoWeighting.of(config) if spec.weighting else None
        credit = CreditAssignment(spec, scale=True, weighting=weighting)
        groups = [
            rollout_group(
                question, written(self.root, question, size), prompt=self.inputs.prompt(question)
            )
            for question in questions
        ]
        rewards = rewarder.start(groups).wait()
        passes = [
            PromptGroup(group.prompt, [one.token_ids for one in group.rollouts]) for group in groups
        ]
        scores = group_logprobs(self.model, passes, frame_layers=3 if spec.weighting else None)
        head = self.model.get_output_embeddings()
        return [
            credit.score(group, earned, of_group, head, 1.0)
            for group, earned, of_group in zip(groups, rewards, scores, strict=True)
        ]

    def close(self) -> None:
        self.loader.close()
