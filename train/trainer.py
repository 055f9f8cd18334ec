"""`VideoGRPOTrainer`: TRL's GRPO trainer with the video in every pass and numbers per token.

TRL 1.16 forwards images only, shuffles rollouts of different prompts together and knows one
advantage per rollout. What is overridden, and why:

    _get_train_sampler                    TRL's order, and the same order after a resume
    _prepare_inputs                       a micro-batch is whole groups
    _generate_and_score_completions       prompts with their media once per question; completions
                                          from a rollout source; rewards begin in the background,
                                          the judge's as soon as an observation is there
    _get_per_token_logps_and_entropies    the policy pass over shared prompts; then, and not before,
                                          rewards are awaited, and advantages [B, T] take their
                                          place: TRL reads them after this call
    _save_checkpoint                      only where a resumed run would go on in the same way
    _load_from_checkpoint                 weights under the names that they were saved with
    _send_telemetry                       nothing is sent

The loss, its options and everything around it are TRL's.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.traces import TraceTemplate
from train.frame_attention import DEFAULT_LAYERS
from train.group_updates import UpdateRule
from train.grouped_forward import GroupScores, PromptGroup, score_groups, unwrapped
from train.media_features import MediaFeatures
from train.micro_batches import (
    MicroBatch,
    Observer,
    RewardSource,
    RolloutSource,
    StepReport,
    draw_seed,
    features_if_frozen,
    micro_batches,
    no_reward_function,
    on_cpu,
    padded_groups,
    refuse_other_inputs,
)
from train.processes import any_process, gather_rows
from train.question_rows import QuestionRows
from train.resuming import EpochSampler, is_whole, load_weights
from train.reward_groups import JudgeUse, PendingRewards
from train.rollout_groups import RolloutGroup, ScoredGroup, rollouts_of
from train.rollout_progress import Progress, ReadAlong
from train.rollouts import Sampling, sample_completions
from train.segments import TokenBytes
from train.trl_library import (
    GRPOConfig,
    GRPOTrainer,
    disable_gradient_checkpointing,
    numbered_rows,
    use_adapter,
)

ROW = "question"


class VideoGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer for questions about videos. The module's text says what it changes.

    `observe` is told of every optimizer step; what it returns is logged.
    Evaluation during training is refused: `train.evaluate` scores checkpoints.
    """

    def __init__(
        self,
        model: Any,
        args: GRPOConfig,
        rows: QuestionRows,
        *,
        processor: Any,
        template: TraceTemplate,
        rule: UpdateRule,
        rewarder: RewardSource,
        rollout_source: RolloutSource = sample_completions,
        observe: Observer | None = None,
        share_prompts: bool = True,
        peft_config: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self._rows, self._template = rows, template
        self._rule, self._rewarder, self._observe = rule, rewarder, observe
        self._rollout_source, self._share_prompts = rollout_source, share_prompts
        self._micro_batches: list[MicroBatch] = []
        self._current: MicroBatch | None = None
        self._pending: PendingRewards | None = None
        self._step_groups: list[ScoredGroup] = []
        self._judge: JudgeUse | None = None
        self._seconds = {"sampling": 0.0, "scoring": 0.0}
        super().__init__(
            model=model,
            reward_funcs=no_reward_function,
            args=args,
            train_dataset=numbered_rows(len(rows), ROW),
            processing_class=processor,
            peft_config=peft_config,
            callbacks=list(callbacks),
        )
        self.data_collator = rows.announce
        refuse_other_inputs(self)
        self._token_bytes = TokenBytes(self._tokenizer)

    @property
    def is_at_generation_boundary(self) -> bool:
        """Whether all that was sampled has been learned from as often as it is to be."""
        generate_every: int = self.args.steps_per_generation * self.num_iterations
        return bool(self._step % generate_every == 0)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return EpochSampler(
            super()._get_train_sampler(dataset), epoch=lambda: int(self.state.epoch or 0)
        )

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Tensor]:
        if not self.model.training:
            raise ValueError("this trainer does not evaluate; score checkpoints by train.evaluate")
        if self.is_at_generation_boundary or not self._micro_batches:
            self._micro_batches = self._generate_and_score_completions(generation_batch)
        self._current = self._micro_batches[self._step % self.args.steps_per_generation]
        return self._current.tensors

    def _generate_and_score_completions(self, inputs: Sequence[Mapping[str, int]]) -> Any:
        """Rows of a generation batch, each question `num_generations` times -> micro-batches."""
        size, device = self.num_generations, self.accelerator.device
        taken = [self._rows.take(row[ROW]) for row in inputs[::size]]
        questions = [question for question, _ in taken]
        prompts = [
            {name: value.to(device) for name, value in prompt.items()} for _, prompt in taken
        ]
        began = time.monotonic()
        with torch.no_grad(), self.accelerator.autocast():
            features = features_if_frozen(unwrapped(self.model), prompts)
            completions = self.draw(
                prompts,
                features,
                [draw_seed(self.args.seed, self.state.global_step, each) for each in questions],
                ReadAlong(questions, size, self._ends, self._token_bytes, self._rewarder.ask_ahead),
            )
        self._seconds["sampling"] += time.monotonic() - began
        groups = [
            RolloutGroup(
                question, prompt, rollouts_of(drawn, self._token_bytes, self._template, self._ends)
            )
            for question, prompt, drawn in zip(questions, prompts, completions, strict=True)
        ]
        self._pending = self._rewarder.start(groups)
        batches = micro_batches(
            groups,
            features,
            count=self.args.steps_per_generation,
            mask_truncated=self.mask_truncated_completions,
            device=device,
        )
        num_tokens = sum(batch.tensors["completion_mask"].sum() for batch in batches)
        total = self.accelerator.gather(num_tokens).sum()
        for batch in batches:
            batch.tensors["num_items_in_batch"] = total
        self._add_old_and_reference_logprobs(batches)
        return batches

    def draw(
        self,
        prompts: Sequence[Mapping[str, Tensor]],
        features: Sequence[MediaFeatures | None],
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> list[list[Tensor]]:
        """Completions of each prompt."""
        known = [each for each in features if each is not None]
        return self._rollout_source(
            self.model,
            prompts,
            group_size=self.num_generations,
            sampling=Sampling(
                max_new_tokens=self.max_completion_length,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k or 0,
                min_p=self.min_p or 0.0,
                repetition_penalty=self.repetition_penalty,
            ),
            end_ids=self._ends,
            seeds=seeds,
            features=known or None,
            share_prompts=self._share_prompts,
            progress=progress,
        )

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
        if self._rule.appo is not None and batch.scored is None:
            num_layers = unwrapped(model).config.get_text_config().num_hidden_layers
            frame_layers = min(DEFAULT_LAYERS, num_layers)
        scores = self._score(model, batch, frame_layers=frame_layers)
        if batch.scored is None:
            batch.scored = self._scored(batch, scores)
            batch.tensors["advantages"] = padded_groups(
                [
                    each.advantages if each.weights is None else each.advantages * each.weights
                    for each in batch.scored
                ],
                logits_to_keep,
            )
        self._step_groups += batch.scored
        if self.accelerator.sync_gradients:
            self._report_step()
        logprobs, entropies = (
            padded_groups([getattr(score, name) for score in scores], logits_to_keep)
            for name in ("logprobs", "entropies")
        )
        return logprobs, entropies, None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        is_last = self.state.global_step >= self.state.max_steps
        if not self.is_at_generation_boundary and not is_last:
            raise RuntimeError(
                f"step {self.state.global_step} is inside a generation: a run resumed from here"
                " would not know its completions"
            )
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if hasattr(self.model, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(model or self.model, Path(resume_from_checkpoint))

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere."""

    def load_checkpoint(self, checkpoint: Path) -> None:
        """Take its weights, without training on."""
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
    ) -> list[GroupScores]:
        groups = [
            PromptGroup(group.prompt, [rollout.token_ids for rollout in group.rollouts], features)
            for group, features in zip(batch.groups, batch.features, strict=True)
        ]
        with self.accelerator.autocast():
            return score_groups(
                model,
                groups,
                temperature=self.temperature,
                frame_layers=frame_layers,
                share_prompts=self._share_prompts,
                entropy_gradient=self._entropy_bonus_enabled,
            )

    def _scored(self, batch: MicroBatch, scores: Sequence[GroupScores]) -> list[ScoredGroup]:
        """Advantages and weights; waits for the rewards, which came while the model computed."""
        assert self._pending is not None, "rewards are begun when completions are there"
        rewards = self._pending.wait()
        if batch.numbers.start == 0:  # the first of its generation to be learned from
            use = self._pending.use
            self._judge = use if self._judge is None else self._judge + use
        lm_head = unwrapped(self.model).get_output_embeddings()
        return [
            self._rule.score(group, reward, score, lm_head, self.temperature)
            for group, reward, score in zip(
                batch.groups, rewards[batch.numbers], scores, strict=True
            )
        ]

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
