"""A question, a model and two trainers for whole steps of reinforcement learning.

The video (8 cells) and the picture have as many tokens, and their prompts as much text. Completions
are drawn in full length by the model; as a random model writes nonsense, ours are then exchanged
for as long ones that a judge can read, half of them right, so that every reward and every weight of
APPO is computed. Stock TRL is given rewards that are as different.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cached_media import CACHE, READER, write_cached
from benchmarks.phases import Phases
from benchmarks.shapes import Shape, dtype_of, shape_of

FRAMES = 16
JUDGE_RULES = [
    {"contains": ["### Observations", "poor"], "reply": "Too little. <judgement>No</judgement>"},
    {"contains": "### Observations", "reply": "It follows. <judgement>Yes</judgement>"},
]


class StepWorld:
    """Files, questions, tokenizer and model of a shape, in a folder of its own."""

    observation_share = 1.0
    """Of a completion's words; the reasoning has the rest."""

    def __init__(self, options: argparse.Namespace, folder: Path, *, kind: str) -> None:
        import torch
        from helpers.training_world import question

        from media.sampling import FrameSpec
        from sandbox.models.tiny_models import build_processor
        from sandbox.models.tiny_tokenizer import build_tokenizer
        from schemas.traces import TEMPLATES
        from train.data.frame_loader import FrameLoader
        from train.data.model_inputs import VideoInputs

        torch.set_num_threads(1)
        self.options, self.shape, self.kind = options, shape_of(options), kind
        self.folder, self.template = folder, TEMPLATES["p2r"]
        side = 28 if options.family == "qwen2.5-vl" else 32
        rows, columns = _rectangle(self.shape.vision_tokens // (8 if kind == "video" else 1))
        size = (rows * side, columns * side)
        names = [f"{n}.{'mp4' if kind == 'video' else 'png'}" for n in range(2 * options.groups)]
        self.tokenizer = build_tokenizer()
        pixels = size[0] * size[1]
        self.processor = build_processor(
            self.tokenizer, family=options.family, min_pixels=pixels, max_pixels=pixels
        )
        spec = FrameSpec(f"uniform:{FRAMES}", max_pixels=pixels)
        for number, name in enumerate(names):
            write_cached(folder, name, spec, size=size, seed=number)
        self.loader = FrameLoader(folder, spec=spec, cache_dir=folder / CACHE, reader=READER)
        self.inputs = VideoInputs(self.processor, self.loader, self.template)
        self.questions = [
            question(name, problem=f"Which colour is number {n}?", row=n)
            for n, name in enumerate(names)
        ]

    @property
    def prompt_tokens(self) -> int:
        """Of every prompt."""
        return self.shape.vision_tokens + self.shape.text_tokens

    def prompt(self, question: Any) -> dict[str, Any]:
        """A question's prompt; of its text the middle is left out, to have as much as is asked."""
        import torch

        prompt = self.inputs.prompt(question)
        length = prompt["input_ids"].shape[1]
        last = int(prompt["mm_token_type_ids"][0].nonzero()[-1]) + 2
        behind = self.prompt_tokens - last
        columns = torch.cat([torch.arange(last), torch.arange(length - behind, length)])
        return {
            name: value[..., columns] if value.shape[-1:] == (length,) else value
            for name, value in prompt.items()
        }

    def short_text(self, picture: Any) -> str:
        """What to ask about a picture so that the prompt has as many tokens."""
        text = "Which colour is it?"
        while True:
            parts = [{"type": "image"}, {"type": "text", "text": text}]
            chat = self.processor.apply_chat_template(
                [{"role": "user", "content": parts}], add_generation_prompt=True
            )
            ids = self.processor(text=[chat], images=[picture])["input_ids"][0]
            if len(ids) >= self.prompt_tokens:
                assert len(ids) == self.prompt_tokens, f"{len(ids)} tokens in the shortest prompt"
                return text
            text += " a"

    def model(self, *, needs_reference: bool = False) -> Any:
        """Random weights of the shape; saved where TRL loads a reference model from."""
        import torch

        from sandbox.models.tiny_models import TinySize, build_qwen2_5_vl, build_qwen3_vl

        shape: Shape = self.shape
        size = TinySize(
            width=shape.width,
            layers=shape.layers,
            heads=shape.heads,
            key_value_heads=shape.kv_heads,
            mlp_width=shape.mlp_width,
            vision_width=shape.vision_width,
            vision_layers=shape.vision_layers,
            vision_heads=shape.vision_heads,
            vision_mlp_width=shape.vision_mlp_width,
            weight_std=0.02,
        )
        build = build_qwen2_5_vl if self.options.family == "qwen2.5-vl" else build_qwen3_vl
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype_of(self.options))
        try:
            with torch.device(self.options.device):
                model = build(self.tokenizer, size)
                model.resize_token_embeddings(max(shape.vocabulary, len(self.tokenizer)))
        finally:
            torch.set_default_dtype(default)
        model.set_attn_implementation("sdpa")
        if needs_reference:
            model.save_pretrained(self.folder / "model")
            model.config._name_or_path = str(self.folder / "model")
        return model.to(self.options.device)

    def completion(self, number: int) -> Any:
        """A readable completion of exactly the given number of tokens; even ones are right."""
        import torch

        answer = "AB"[number % 2]
        end = self.tokenizer.eos_token_id
        words = [("red", "blue", "poor")[number % 3], *["moves"] * number]
        while True:
            seen = 1 + round(self.observation_share * (len(words) - 1))
            text = (
                f"<observation>{' '.join(words[:seen])}</observation>"
                f" <think>{' '.join(['so it is', *words[seen:]])}</think><answer>{answer}</answer>"
            )
            ids = [*self.tokenizer(text)["input_ids"], end]
            if len(ids) >= self.shape.tokens:
                break
            words.append("a")
        assert len(ids) == self.shape.tokens, f"{len(ids)} tokens, {self.shape.tokens} wanted"
        return torch.tensor(ids)

    def draw(
        self, model: Any, prompts: Sequence[Mapping[str, Any]], *, group_size: int, **given: Any
    ) -> list[list[Any]]:
        """A rollout source: full-length completions are drawn, and readable ones handed out."""
        from train.rollouts.sampler import sample_completions

        drawn = sample_completions(model, prompts, group_size=group_size, **given | {"end_ids": ()})
        assert all(len(row) == self.shape.tokens for group in drawn for row in group)
        return [[self.completion(number) for number in range(group_size)] for _ in prompts]

    def settings(self, algo: str, **more: Any) -> Any:
        """TRL's settings for an algorithm: a group per micro-batch."""
        from train.algorithms.registry import parse_algo
        from train.trainers.trl_imports import GRPOConfig

        spec, on_gpu = parse_algo(algo), self.options.device != "cpu"
        values = {
            "output_dir": str(self.folder / "out"),
            "loss_type": spec.loss_type,
            "beta": spec.beta if self.options.beta is None else self.options.beta,
            "epsilon": spec.epsilon,
            "epsilon_high": spec.epsilon_high,
            "scale_rewards": "group" if spec.scale else "none",
            "num_generations": self.shape.completions,
            "per_device_train_batch_size": self.shape.completions,
            "gradient_accumulation_steps": self.options.groups,
            "max_completion_length": self.shape.tokens,
            "max_steps": 10_000,
            "learning_rate": 1e-6,
            "save_strategy": "no",
            "report_to": "none",
            "bf16": on_gpu,
            "use_cpu": not on_gpu,
            "gradient_checkpointing": self.options.gradient_checkpointing,
            "disable_tqdm": True,
            "logging_strategy": "no",
        }
        return GRPOConfig(**values | more)

    def ours(self, algo: str, rewarder: Any, phases: Phases, *, share_prompts: bool = True) -> Any:
        """Our trainer with an algorithm."""
        from train.algorithms.appo import AppoConfig
        from train.algorithms.appo_weighting import AppoWeighting
        from train.algorithms.credit_assignment import CreditAssignment
        from train.algorithms.registry import parse_algo
        from train.data.prompt_dataset import PromptDataset
        from train.trainers.grpo_trainer import VideoGRPOTrainer

        phases.time(self, "prompt", "prompts")
        spec = parse_algo(algo)
        appo = AppoConfig(tokens_per_frame=self.options.tokens_per_frame)
        settings = self.settings(algo)
        trainer = VideoGRPOTrainer(
            self.model(needs_reference=settings.beta > 0),
            settings,
            PromptDataset(self.questions, self.prompt, prefetch=self.loader.prefetch),
            processor=self.processor,
            template=self.template,
            credit=CreditAssignment(
                spec, scale=spec.scale, weighting=AppoWeighting.of(appo) if spec.weighting else None
            ),
            rewarder=rewarder,
            rollout_source=self.draw,
            observe=phases.observe,
            share_prompts=share_prompts,
            callbacks=[phases.callback()],
        )
        phases.time(trainer, "draw", "rollouts")
        phases.time(trainer, "_add_old_and_reference_logprobs", "reference pass")
        phases.time(trainer, "_score", "policy forward")
        phases.time(trainer, "_scored", "rewards and weights")
        phases.time(trainer.accelerator, "backward", "backward")
        return trainer

    def stock(self, phases: Phases) -> Any:
        """TRL's own trainer with DAPO, on pictures: it cannot see videos."""
        from PIL import Image
        from trl import GRPOTrainer

        from train.trainers.trl_imports import Dataset

        pictures = [
            Image.fromarray(self.loader.load(each.media[0]).pixels[0]) for each in self.questions
        ]
        text = self.short_text(pictures[0])
        rows = [
            {"prompt": [{"role": "user", "content": text}], "image": picture}
            for picture in pictures
        ]

        def reward(completions: Sequence[Any], **_: Any) -> list[float]:
            return [float(place % 2) for place, _ in enumerate(completions)]

        model = self.model()
        config = model.config
        trainer = GRPOTrainer(
            model,
            reward_funcs=reward,
            args=self.settings(
                "dapo",
                generation_kwargs={
                    "min_new_tokens": self.shape.tokens,
                    "suppress_tokens": [config.image_token_id, config.video_token_id],
                },
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.processor,
            callbacks=[phases.callback()],
        )
        self._expect_length(trainer)
        phases.time(trainer, "_tokenize_prompts", "prompts")
        phases.time(trainer, "_generate_single_turn", "rollouts")
        phases.time(trainer, "_get_per_token_logps_and_entropies", "policy forward")
        phases.time(trainer, "_calculate_rewards", "rewards and weights")
        phases.time(trainer.accelerator, "backward", "backward")
        return trainer

    def _expect_length(self, trainer: Any) -> None:
        """Stop where a prompt of TRL's own making has another number of tokens."""
        tokenize = trainer._tokenize_prompts

        def checked(prompts: Any) -> Any:
            result = tokenize(prompts)
            assert {len(ids) for ids in result[0]} == {self.prompt_tokens}
            return result

        trainer._tokenize_prompts = checked


@contextlib.contextmanager
def judged(
    world: StepWorld, *, latency_seconds: float = 0.0, asks_ahead: bool = True
) -> Iterator[Any]:
    """Rewards of a step with a judge behind HTTP that replies after a given delay in seconds."""
    from servers.model_server import running_server

    from train.rewards.group_rewarder import GroupRewarder
    from train.rewards.judge_client import JudgeClient
    from train.rewards.segment_rewards import RewardConfig

    with running_server(latency_ms=1000 * latency_seconds) as server:
        server.control(replies=JUDGE_RULES)
        with JudgeClient(
            f"openai:judge@{server.openai_url}",
            ledger_path=world.folder / "judge-0.duckdb",
            media_root=world.folder,
        ) as judge:
            # Every step asks about the same observations: what is known already is asked again.
            for name in ("submit", "ask_ahead"):
                setattr(judge, name, partial(_uncached, judge, getattr(judge, name)))
            yield GroupRewarder(world.template, RewardConfig(), judge, asks_ahead=asks_ahead)


@contextlib.contextmanager
def judged_here(world: StepWorld) -> Iterator[Any]:
    """The same without a server: a judge in this process that has answered when it is asked."""
    from benchmarks.instant_judge import InstantJudge
    from train.rewards.group_rewarder import GroupRewarder
    from train.rewards.segment_rewards import RewardConfig

    judge: Any = InstantJudge()
    yield GroupRewarder(world.template, RewardConfig(), judge)


def _uncached(judge: Any, ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
    judge.number_of_calls = getattr(judge, "number_of_calls", 0) + 1
    return ask(*given, **named | {"first_draw": judge.number_of_calls})


def _rectangle(area: int) -> tuple[int, int]:
    """Two whole sides, as equal as can be."""
    side = next(side for side in range(int(area**0.5), 0, -1) if area % side == 0)
    return side, area // side
