"""`VideoGRPOTrainer`: TRL's GRPO trainer with the video in every pass and numbers per token.

TRL 1.16 forwards images only, shuffles rollouts of different prompts together and knows one
advantage per rollout. What is overridden, and why:

    _get_train_sampler                    TRL's order, and the same order after a resume
    _prepare_inputs                       a micro-batch is whole groups
    _generate_and_score_completions       prompts with their media once per question; completions
                                          from a rollout source or engine; rewards begin in the
                                          background, the judge's as soon as an observation is there
    create_accelerator_and_postprocess    how weights are spread over processes (FSDP2)
    _prepare_for_training                 the parity check, on the model as it is trained
    _save_checkpoint                      only where a resumed run would go on in the same way

in `train.trainers.policy_passes.PolicyPasses` the passes of the learner, and in
`train.trainers.checkpoints.CommonOverrides` model cards, loading weights, telemetry.
The loss, its options and everything around it are TRL's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.traces import TraceTemplate
from train.algorithms.credit_assignment import CreditAssignment
from train.data.prompt_dataset import PromptDataset
from train.modeling.numerics import NotFiniteError
from train.modeling.sharding import unwrapped, whole_weights
from train.modeling.vision_cache import MediaFeatures, features_if_frozen, vision_tower
from train.rewards.judge_health import JudgeUse
from train.rewards.pending_rewards import PendingRewards, RewardSource
from train.rollouts.sampler import Sampling, sample_rollouts
from train.rollouts.segments import TokenBytes, rollouts_of
from train.rollouts.streaming import (
    Drawn,
    PendingDraw,
    Progress,
    ReadAlong,
    RolloutEngine,
    RolloutSource,
)
from train.rollouts.token_sampling import group_seed
from train.rollouts.types import RolloutGroup, ScoredGroup
from train.trainers.checkpoint_files import is_whole
from train.trainers.checkpoints import CommonOverrides, EpochSampler
from train.trainers.distributed import any_process
from train.trainers.generations import EngineDraws, Generation, row_order
from train.trainers.micro_batches import MicroBatch, micro_batches
from train.trainers.policy_passes import PolicyPasses
from train.trainers.sampler_check import SamplerTolerance
from train.trainers.sharded import after_preparation, plan_sharding, prepared_without_training
from train.trainers.step_report import Observer
from train.trainers.trl_imports import (
    Dataset,
    GRPOConfig,
    GRPOTrainer,
)

ROW = "question"


class VideoGRPOTrainer(PolicyPasses, CommonOverrides, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer for questions about videos. The module's docstring lists the changes.

    `observe` is called after every optimizer step; what it returns is logged. `before_first_step`
    is called with the model as it will be trained: wrapped, or its weights spread over processes.
    Evaluation during training is refused: `train.evaluate` scores checkpoints.
    """

    def __init__(
        self,
        model: Any,
        args: GRPOConfig,
        rows: PromptDataset,
        *,
        processor: Any,
        template: TraceTemplate,
        credit: CreditAssignment,
        rewarder: RewardSource,
        rollout_source: RolloutSource = sample_rollouts,
        engine: RolloutEngine | None = None,
        rollouts_ahead: int = 0,
        importance_cap: float = 2.0,
        sampler_tolerance: SamplerTolerance | None = None,
        observe: Observer | None = None,
        before_first_step: Callable[[], None] = lambda: None,
        share_prompts: bool = True,
        completions_per_pass: int | None = None,
        peft_config: Any = None,
        callbacks: Sequence[Any] = (),
        write_card: Callable[[Path], None] | None = None,
    ) -> None:
        self._rows, self._template, self.write_card = rows, template, write_card
        self._credit, self._rewarder, self._observe = credit, rewarder, observe
        self._before_first_step = before_first_step
        self._rollout_source, self._share_prompts = rollout_source, share_prompts
        self._per_pass = completions_per_pass
        self._engine_draws, self._cap = None, None
        if engine is not None:
            start = partial(self._started_by, engine)
            self._engine_draws = EngineDraws(engine, ahead=rollouts_ahead > 0, start=start)
            self._cap = importance_cap
        self._sampler_tolerance = sampler_tolerance
        self._micro_batches: list[MicroBatch] = []
        self._current: MicroBatch | None = None
        self._pending: PendingRewards | None = None
        self._step_groups: list[ScoredGroup] = []
        self._judge: JudgeUse | None = None
        self._seconds = {"sampling": 0.0, "scoring": 0.0}
        super().__init__(
            model=model,
            reward_funcs=_no_reward_function,
            args=args,
            train_dataset=Dataset.from_dict({ROW: list(range(len(rows)))}),
            processing_class=processor,
            peft_config=peft_config,
            callbacks=list(callbacks),
        )
        self.data_collator = rows.prefetch
        _refuse_other_inputs(self)
        self._token_bytes = TokenBytes(self._tokenizer)
        self._row_order = row_order(self, super()._get_train_sampler)

    @property
    def is_at_generation_boundary(self) -> bool:
        """Whether every completion sampled so far has had all its updates."""
        generate_every: int = self.args.steps_per_generation * self.num_iterations
        return bool(self._step % generate_every == 0)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return EpochSampler(
            super()._get_train_sampler(dataset), epoch=lambda: int(self.state.epoch or 0)
        )

    def create_accelerator_and_postprocess(self) -> None:
        """Called by transformers before any model is spread over processes."""
        super().create_accelerator_and_postprocess()
        plan_sharding(self)

    def _prepare_for_training(self, *args: Any) -> Any:
        prepared = super()._prepare_for_training(*args)
        after_preparation(self)
        self._before_first_step()
        return prepared

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Tensor]:
        if not self.model.training:
            raise ValueError("this trainer does not evaluate; score checkpoints by train.evaluate")
        if self.is_at_generation_boundary or not self._micro_batches:
            self._micro_batches = self._generate_and_score_completions(generation_batch)
        self._current = self._micro_batches[self._step % self.args.steps_per_generation]
        return self._current.tensors

    def _generate_and_score_completions(self, inputs: Sequence[Mapping[str, int]]) -> Any:
        """Rows of a generation batch, each question `num_generations` times -> micro-batches."""
        device = self.accelerator.device
        rows = [row[ROW] for row in inputs[:: self.num_generations]]
        ahead = None if self._engine_draws is None else self._engine_draws.take(rows)
        generation = ahead or self._generation(rows, self.state.global_step)
        prompts = [
            {name: value.to(device) for name, value in prompt.items()}
            for prompt in generation.prompts
        ]
        began = time.monotonic()
        with torch.no_grad(), self.accelerator.autocast():
            bare = unwrapped(self.model)
            with whole_weights(self.model, vision_tower(bare)):
                features = features_if_frozen(bare, prompts)
            if self._engine_draws is None:
                drawn = self._drawn_in_all_processes(
                    prompts, features, generation.seeds, self._read_along(generation)
                )
            else:
                drawn = self._engine_draws.draw(generation, self.model, self.state.global_step)
        self._seconds["sampling"] += time.monotonic() - began
        groups = [
            RolloutGroup(
                question,
                prompt,
                rollouts_of(
                    drawn.tokens[number],
                    self._token_bytes,
                    self._template,
                    self._ends,
                    None if drawn.logprobs is None else drawn.logprobs[number],
                ),
            )
            for number, (question, prompt) in enumerate(
                zip(generation.questions, prompts, strict=True)
            )
        ]
        self._pending = self._rewarder.start(groups)
        if self._engine_draws is not None:
            following = partial(self._following_generation, rows)
            self._engine_draws.draw_ahead(following, self.model, self.state.global_step)
        batches = micro_batches(
            groups,
            features,
            count=self.args.steps_per_generation,
            per_pass=self._per_pass,
            mask_truncated=self.mask_truncated_completions,
            device=device,
        )
        num_tokens = sum(batch.tensors["completion_mask"].sum() for batch in batches)
        total = self.accelerator.gather(num_tokens).sum()
        for batch in batches:
            batch.tensors["num_items_in_batch"] = total
        self._add_old_and_reference_logprobs(batches)
        return batches

    def _generation(self, rows: list[int], step: int) -> Generation:
        """The questions of these rows, to be learned from after `step` steps."""
        taken = [self._rows[number] for number in rows]
        seeds = [
            group_seed(
                self.args.seed,
                step,
                question,
                instead_of=row if row in self._rows.lost else None,
            )
            for row, (question, _) in zip(rows, taken, strict=True)
        ]
        return Generation(rows, [each[0] for each in taken], [each[1] for each in taken], seeds)

    def _following_generation(self, rows: list[int]) -> Generation | None:
        """The generation behind that of `rows`, which begins now; None at the end of training."""
        accumulation = self.args.gradient_accumulation_steps
        generate_every = self.args.steps_per_generation * self.num_iterations
        done = self.state.global_step * accumulation + self._step % accumulation + generate_every
        if done >= self.state.max_steps * accumulation:
            return None
        following = self._row_order.after(rows, int(self.state.epoch or 0))
        return self._generation(following, done // accumulation)

    def _read_along(self, generation: Generation) -> ReadAlong:
        return ReadAlong(
            generation.questions,
            self.num_generations,
            self._ends,
            self._token_bytes,
            self._rewarder.ask_ahead,
        )

    def _started_by(self, engine: RolloutEngine, generation: Generation) -> PendingDraw:
        return engine.start(
            generation.questions,
            generation.prompts,
            group_size=self.num_generations,
            sampling=self._sampling,
            end_ids=self._ends,
            seeds=generation.seeds,
            reader=self._read_along(generation),
        )

    def _drawn_in_all_processes(self, *args: Any) -> Drawn:
        """As `draw`; raises NotFiniteError in every process where a model fails in one."""
        problem, drawn = "", Drawn([], None)
        try:
            drawn = self.draw(*args)
        except NotFiniteError as error:
            problem = str(error)
        if any_process(bool(problem)):
            raise NotFiniteError(problem or "the model's scores are not finite in another process")
        return drawn

    def draw(
        self,
        prompts: Sequence[Mapping[str, Tensor]],
        features: Sequence[MediaFeatures | None],
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> Drawn:
        """Completions of each prompt, sampled in this process."""
        known = [each for each in features if each is not None]
        drawn = self._rollout_source(
            self.model,
            prompts,
            group_size=self.num_generations,
            sampling=self._sampling,
            end_ids=self._ends,
            seeds=seeds,
            features=known or None,
            share_prompts=self._share_prompts,
            progress=progress,
        )
        return drawn if isinstance(drawn, Drawn) else Drawn(drawn, None)

    @property
    def _sampling(self) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_completion_length,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty,
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        is_last = self.state.global_step >= self.state.max_steps
        if not self.is_at_generation_boundary and not is_last:
            raise RuntimeError(
                f"step {self.state.global_step} is inside a generation: a run resumed from here"
                " would not know its completions"
            )
        super()._save_checkpoint(model, trial)

    def load_checkpoint(self, checkpoint: Path) -> None:
        """Take its weights, without training on."""
        prepared_without_training(self)
        self._load_from_checkpoint(str(checkpoint))

    def save_whole_step(self) -> None:
        """A checkpoint of the last optimizer step, while nothing of the next one has happened."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        is_missing = not is_whole(folder, self.accelerator.num_processes)
        if self.state.global_step and any_process(is_missing):
            self._save_checkpoint(self.model, None)

    @property
    def _ends(self) -> list[int]:
        return list(self.eos_token_ids)


def _no_reward_function(**_: Any) -> list[float]:
    """TRL requires one; rewards come from a `RewardSource` instead, so TRL never calls this."""
    raise RuntimeError("rewards of a VideoGRPOTrainer come from its reward source")


def _refuse_other_inputs(trainer: Any) -> None:
    """Raise ValueError for settings under which TRL would read what this trainer does not give."""
    size = trainer.args.per_device_train_batch_size
    if size % trainer.num_generations:
        raise ValueError(
            f"per_device_train_batch_size ({size}) must be a multiple of num_generations"
            f" ({trainer.num_generations}): a micro-batch holds whole groups"
        )
    if trainer.aux_loss_enabled:
        raise ValueError("router_aux_loss_coef must be 0: mixture-of-experts losses are not kept")
    if trainer.use_vllm:
        raise ValueError("use_vllm must be off: completions come from a rollout source")
