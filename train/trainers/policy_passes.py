"""What the learner computes of a micro-batch, and what it learns from that.

`PolicyPasses` stands in front of TRL's trainer. Log-probs by the policy, by the weights that a
generation began with and by the reference come from passes over shared prompts
(`train.modeling.packed_forward`). Then, and not before, rewards are awaited, and advantages [B, T]
take their place: TRL reads them after that. The loss is TRL's.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.importance_ratio import update_factors, with_sampler_gap
from train.algorithms.token_weighting import AlgorithmError
from train.modeling.families import attention_layers
from train.modeling.frame_attention import DEFAULT_LAYERS
from train.modeling.packed_forward import GroupLogprobs, PromptGroup, group_logprobs, joined
from train.modeling.sharding import unwrapped, whole_head
from train.rewards.judge_health import JudgeUse
from train.rewards.pending_rewards import PendingRewards
from train.rollouts.types import ScoredGroup
from train.trainers.distributed import any_process, gather_rows
from train.trainers.micro_batches import MicroBatch, Pass, groups_of, padded_groups
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
    top_entropy_quantile: float
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool
    _metrics: Any
    _entropy_bonus_enabled: bool
    _entropy_window_stats: Tensor | None
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
    _pass: Pass
    """The pass of the current micro-batch that is computed now."""
    _known: Tensor
    """Log-probs and entropies [2, B, T] of the current micro-batch, as far as they are known."""
    _is_new: bool
    """Whether nothing has been learned from the current micro-batch before."""

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """TRL's loss of the current micro-batch, ready for the backward pass of its last pass.

        The passes before have had their backward pass then, one by one. Each term of the loss reads
        a row of its own, and divisors are known from the masks, so TRL's loss of the whole
        micro-batch, with gradient in the rows of one pass, has that pass's part of the gradient.
        The last loss is the one that is reported: all log-probs are known by then.
        """
        batch = self._current
        assert batch is not None, "TRL prepares inputs before it computes a loss"
        self._known = _unknown(inputs)
        if len(batch.passes) > 1 and self._reads_across_passes(batch):
            self._look_ahead(batch)
        self._is_new = batch.scored is None
        trl: Any = super()
        for each in batch.passes[:-1]:
            with self._before_the_last_pass(model):
                self._pass = each
                self._backward(trl._compute_loss(model, inputs))
        self._pass = batch.passes[-1]
        loss: Tensor = trl._compute_loss(model, inputs)
        return loss

    def _reads_across_passes(self, batch: MicroBatch) -> bool:
        """Whether a pass needs to know the others: a token weighting reads all of a group, TRL's
        choice of tokens by entropy all of a micro-batch."""
        weighs = self._credit.weighting is not None and batch.scored is None
        return weighs or self.top_entropy_quantile < 1

    @torch.no_grad()
    def _look_ahead(self, batch: MicroBatch) -> None:
        """All passes once without gradient, and what a token weighting makes of them."""
        began = time.monotonic()
        layers = self._frame_layers(batch)
        parts = [list[GroupLogprobs]() for _ in batch.groups]
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            for each in batch.passes:
                scores = self._score(self.model, batch, each, layers)
                self._known[:, each.rows] = self._values(scores)
                for (number, _), score in zip(each.parts, scores, strict=True):
                    parts[number].append(score)
        self._seconds["scoring"] += time.monotonic() - began
        if batch.scored is None:
            batch.scored = self._scored(batch, [joined(parts.pop(0)) for _ in batch.groups])
            self._put_advantages(batch)
            self._check_sampler(batch.scored)

    @contextmanager
    def _before_the_last_pass(self, model: Any) -> Iterator[None]:
        """Nothing in this block happens that a micro-batch does once: data parallelism sums
        gradients over processes, DeepSpeed takes a step, TRL logs and looks at entropies.

        FSDP2 sums the gradients of each pass, or whole ones would be kept between passes.
        """
        gradients = self.accelerator.gradient_state
        is_last, metrics = gradients.sync_gradients, self._metrics
        entropies = self._entropy_window_stats
        sums_each = self.is_fsdp_enabled or self.is_deepspeed_enabled
        gradients._set_sync_gradients(False)
        self._metrics = {mode: defaultdict(list) for mode in metrics}
        try:
            with nullcontext() if sums_each else self.accelerator.no_sync(model):
                yield
        finally:
            gradients._set_sync_gradients(is_last)
            self._metrics, self._entropy_window_stats = metrics, entropies

    def _backward(self, loss: Tensor) -> None:
        """As transformers' `training_step` does it."""
        options = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
        self.accelerator.backward(loss, **options)

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

        With gradient in the rows of the current pass; rows of passes that are still to come hold
        what is known before them. The tensors given hold no prompt: the groups do.
        """
        batch, own = self._current, self._pass
        assert batch is not None, "TRL prepares inputs before it computes a loss"
        is_whole, is_last = len(batch.passes) == 1, own is batch.passes[-1]
        layers = self._frame_layers(batch) if is_whole else None
        scores = self._score(model, batch, own, layers)
        values = self._values(scores)
        self._known[:, own.rows] = values.detach()
        if self._is_new:
            if batch.scored is None:
                batch.scored = self._scored(batch, scores if is_whole else None)
            self._put_advantages(batch)
        assert batch.scored is not None
        if is_last:
            if self._is_new:
                self._check_sampler(batch.scored)
            self._step_groups += batch.scored
            if self.accelerator.sync_gradients:
                self._report_step()
        before, behind = self._known[:, : own.rows.start], self._known[:, own.rows.stop :]
        logprobs, entropies = torch.cat([before, values, behind], dim=1)
        return logprobs, entropies, None

    def _frame_layers(self, batch: MicroBatch) -> int | None:
        """Of how many last layers the policy pass gives frame attention; None where none is read"""
        if not self._credit.needs_frame_attention or batch.scored is not None:
            return None
        return min(DEFAULT_LAYERS, len(attention_layers(unwrapped(self.model).config)))

    def _values(self, scores: Sequence[GroupLogprobs]) -> Tensor:
        """Log-probs and entropies [2, rows, T] of a pass."""
        width = self._known.shape[2]
        return torch.stack(
            [
                padded_groups([score.logprobs for score in scores], width),
                padded_groups([score.entropies for score in scores], width),
            ]
        )

    def _put_advantages(self, batch: MicroBatch) -> None:
        """Advantages times weights times importance ratios, where TRL's loss reads them.

        Ratios are those of the log-probs that are known so far.
        """
        assert batch.scored is not None
        batch.scored = [
            with_sampler_gap(each, learner, self._cap)
            for each, learner in zip(batch.scored, groups_of(batch, self._known[0]), strict=True)
        ]
        factors = [update_factors(each) for each in batch.scored]
        batch.tensors["advantages"] = padded_groups(factors, self._known.shape[2])

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
        scores = [score for each in batch.passes for score in self._score(model, batch, each)]
        return padded_groups([score.logprobs for score in scores], width)

    def _score(
        self, model: Any, batch: MicroBatch, own: Pass, frame_layers: int | None = None
    ) -> list[GroupLogprobs]:
        """Of each part of a group in a pass."""
        groups = [
            PromptGroup(
                batch.groups[number].prompt,
                [rollout.token_ids for rollout in batch.groups[number].rollouts[part]],
                batch.features[number],
            )
            for number, part in own.parts
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

    def _scored(
        self, batch: MicroBatch, scores: Sequence[GroupLogprobs] | None
    ) -> list[ScoredGroup]:
        """Advantages and weights; waits for the rewards, which came while the model computed.

        `scores` are those of whole groups; None where no token weighting reads them. Raises
        AlgorithmError in every process where they fail in one.
        """
        assert self._pending is not None, "rewards are begun when completions are there"
        rewards = self._pending.wait()
        if batch.numbers.start == 0:  # the first of its generation to be learned from
            use = self._pending.use
            self._judge = use if self._judge is None else self._judge + use
        lm_head = whole_head(self.model) if self._credit.weighting else None
        read = [None] * len(batch.groups) if scores is None else scores
        problem, scored = "", list[ScoredGroup]()
        try:
            scored = [
                self._credit.score(group, reward, score, lm_head, self.temperature)
                for group, reward, score in zip(
                    batch.groups, rewards[batch.numbers], read, strict=True
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


def _unknown(inputs: Mapping[str, Tensor]) -> Tensor:
    """Log-probs and entropies [2, B, T] before a pass: the old log-probs, from which no importance
    ratio overflows, where there are any; else 0."""
    ids, old = inputs["completion_ids"], inputs.get("old_per_token_logps")
    nothing = torch.zeros(ids.shape, device=ids.device)
    return torch.stack([nothing if old is None else old, nothing])
