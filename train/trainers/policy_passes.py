"""What the learner computes of a micro-batch, and what it learns from that.

`PolicyPasses` stands in front of TRL's trainer. Log-probs by the policy, by the weights that a
generation began with and by the reference come from passes over shared prompts
(`train.modeling.packed_forward`). Then, and not before, rewards are awaited, and advantages [B, T]
take their place: TRL reads them after that. The loss is TRL's.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.importance_ratio import update_factors, with_sampler_gap
from train.algorithms.token_weighting import AlgorithmError
from train.modeling.families import attention_layers
from train.modeling.frame_attention import DEFAULT_LAYERS
from train.modeling.packed_forward import GroupLogprobs, PromptGroup, group_logprobs
from train.modeling.sharding import unwrapped, whole_head
from train.rewards.judge_health import JudgeUse
from train.rewards.pending_rewards import PendingRewards
from train.rollouts.types import ScoredGroup
from train.trainers.distributed import any_process, gather_rows
from train.trainers.micro_batches import MicroBatch, groups_of, padded_groups
from train.trainers.sampler_check import SamplerTolerance, refuse_other_sampler
from train.trainers.step_report import Observer, StepReport, on_cpu
from train.trainers.trl_imports import disable_gradient_checkpointing, use_adapter


class PolicyPasses:
    """A mixin in front of TRL's trainer: the passes of a micro-batch, by whichever weights."""

    model: Any
    ref_model: Any
    accelerator: Any
    args: Any
    state: Any
    beta: float
    temperature: float
    num_iterations: int
    _metrics: Any
    _entropy_bonus_enabled: bool
    _credit: CreditAssignment
    _share_prompts: bool
    _cap: float | None
    _engine_draws: Any
    _sampler_tolerance: SamplerTolerance | None
    _current: MicroBatch | None
    _pending: PendingRewards | None
    _step_groups: list[ScoredGroup]
    _judge: JudgeUse | None
    _seconds: dict[str, float]
    _observe: Observer | None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **media: Any,
    ) -> tuple[Tensor, Tensor, None]:
        """Log-probs and entropies [B, T] of the current micro-batch, and its advantages in place.

        The tensors given hold no prompt: the groups do.
        """
        batch = self._current
        assert batch is not None, "TRL prepares inputs before it computes a loss"
        frame_layers = None
        if self._credit.needs_frame_attention and batch.scored is None:
            frame_layers = min(DEFAULT_LAYERS, len(attention_layers(unwrapped(model).config)))
        scores = self._score(model, batch, frame_layers=frame_layers)
        if batch.scored is None:
            batch.scored = [
                with_sampler_gap(each, learner, self._cap)
                for each, learner in zip(
                    self._scored(batch, scores),
                    groups_of(batch, [score.logprobs for score in scores]),
                    strict=True,
                )
            ]
            self._check_sampler(batch.scored)
            batch.tensors["advantages"] = padded_groups(
                [update_factors(each) for each in batch.scored], logits_to_keep
            )
        self._step_groups += batch.scored
        if self.accelerator.sync_gradients:
            self._report_step()
        logprobs, entropies = (
            padded_groups([getattr(score, name) for score in scores], logits_to_keep)
            for name in ("logprobs", "entropies")
        )
        return logprobs, entropies, None

    @torch.no_grad()
    def _add_old_and_reference_logprobs(self, batches: Sequence[MicroBatch]) -> None:
        """Old log-probs where updates lie between sampling and learning, as TRL decides it."""
        generate_every = self.args.steps_per_generation * self.num_iterations
        began = time.monotonic()
        needs_old = self.args.gradient_accumulation_steps % generate_every != 0
        reference, context = self.model, nullcontext()
        if self.ref_model is not None:
            reference = self.ref_model
        elif self.beta:
            adapters = self.accelerator.unwrap_model(self.model)
            context = use_adapter(adapters, "ref" if "ref" in adapters.peft_config else None)
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            for batch in batches if needs_old else ():
                batch.tensors["old_per_token_logps"] = self._logprobs(self.model, batch)
            if self.beta:
                with context:
                    for batch in batches:
                        batch.tensors["ref_per_token_logps"] = self._logprobs(reference, batch)
        self._seconds["scoring"] += time.monotonic() - began

    def _logprobs(self, model: Any, batch: MicroBatch) -> Tensor:
        width = batch.tensors["completion_ids"].shape[1]
        return padded_groups([score.logprobs for score in self._score(model, batch)], width)

    def _score(
        self, model: Any, batch: MicroBatch, *, frame_layers: int | None = None
    ) -> list[GroupLogprobs]:
        groups = [
            PromptGroup(group.prompt, [rollout.token_ids for rollout in group.rollouts], features)
            for group, features in zip(batch.groups, batch.features, strict=True)
        ]
        with self.accelerator.autocast():
            return group_logprobs(
                model,
                groups,
                temperature=self.temperature,
                frame_layers=frame_layers,
                share_prompts=self._share_prompts,
                entropy_gradient=self._entropy_bonus_enabled,
            )

    def _scored(self, batch: MicroBatch, scores: Sequence[GroupLogprobs]) -> list[ScoredGroup]:
        """Advantages and weights; waits for the rewards, which came while the model computed.

        Raises AlgorithmError in every process where they fail in one.
        """
        assert self._pending is not None, "rewards are begun when completions are there"
        rewards = self._pending.wait()
        if batch.numbers.start == 0:  # the first of its generation to be learned from
            use = self._pending.use
            self._judge = use if self._judge is None else self._judge + use
        lm_head = whole_head(self.model) if self._credit.weighting else None
        problem, scored = "", list[ScoredGroup]()
        try:
            scored = [
                self._credit.score(group, reward, score, lm_head, self.temperature)
                for group, reward, score in zip(
                    batch.groups, rewards[batch.numbers], scores, strict=True
                )
            ]
        except AlgorithmError as error:
            problem = str(error)
        if any_process(bool(problem)):
            raise AlgorithmError(problem or "the algorithm failed in another process")
        return scored

    def _check_sampler(self, scored: Sequence[ScoredGroup]) -> None:
        """Once, of the first completions: they are the learner's own, whoever sampled them."""
        if self._engine_draws is not None and self._sampler_tolerance is not None:
            tolerance, self._sampler_tolerance = self._sampler_tolerance, None
            refuse_other_sampler(scored, tolerance)

    def _report_step(self) -> None:
        """Once per optimizer step: what was learned from, and its numbers into TRL's log."""
        groups, self._step_groups = [on_cpu(each) for each in self._step_groups], []
        seconds, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        judge, self._judge = self._judge, None
        if self._observe is None:
            return
        step = self.state.global_step + 1
        report = StepReport(step, groups, judge, seconds, gather_rows)
        for name, value in self._observe(report).items():
            self._metrics["train"][name].append(value)
