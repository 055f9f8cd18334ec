"""Our rewards and segment advantages for TRL's GRPOTrainer (TRL 1.16).

    rewards = TrlRewards(read_reward_options("rewards.yaml"), processor.tokenizer)
    GRPOTrainer(model, reward_funcs=[rewards.total], train_dataset=rows, args=GRPOConfig(...))

    class Trainer(SegmentAdvantages, GRPOTrainer): ...          # PA-GRPO
    Trainer(model, reward_funcs=[rewards.perception, rewards.reasoning], ...)

The dataset needs a column `question` (`completion_rewards.question_column`). TRL sums what its
reward functions return and counts a missing value among present ones as 0. So a sum of ours is one
function, `total`, which is missing where a part is; TRL leaves such a rollout out of its group.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from cli.config import UsageError
from schemas.traces import TEMPLATES
from train.algorithms.advantages import segment_advantages
from train.integrations.completion_rewards import (
    CompletionReward,
    CompletionRewarder,
    CompletionRewardOptions,
    as_missing,
    question_of,
)
from train.rollouts.segments import TokenBytes, segment_ids

RewardFunction = Callable[..., list[float | None]]


class TrlRewards:
    """Functions for `reward_funcs`; all of them share one judgement of each batch of completions.

    `total`, `perception` and `reasoning` return one number for each completion, None = missing.
    Where the trainer hands over `log_metric`, each reward of the options is logged by its name.
    Close it at the end. Raises UsageError as `CompletionRewarder` does.
    """

    def __init__(self, options: CompletionRewardOptions, tokenizer: Any, **settings: Any) -> None:
        self.rewarder = CompletionRewarder(options, tokenizer=tokenizer, **settings)
        self.total = self._function("total", lambda reward: reward.total)
        self.reasoning = self._function("reasoning", lambda reward: reward.reasoning.total)
        self.perception = self._function("perception", _perception)
        self._judged: Sequence[Sequence[int]] = ()
        self._rewards: list[CompletionReward] = []

    def close(self) -> None:
        """Close the judge and its ledger."""
        self.rewarder.close()

    def _function(self, name: str, number: Callable[[CompletionReward], float]) -> RewardFunction:
        def function(
            completion_ids: Sequence[Sequence[int]],
            question: Sequence[object] | None = None,
            log_metric: Callable[[str, float], None] | None = None,
            **_: Any,
        ) -> list[float | None]:
            if question is None:
                raise UsageError(
                    "the training dataset has no column question; add one, filled by"
                    " train.integrations.completion_rewards.question_column"
                )
            rewards = self._of_batch(completion_ids, question, log_metric)
            return [as_missing(number(reward)) for reward in rewards]

        function.__name__ = function.__qualname__ = name
        return function

    def _of_batch(
        self,
        completion_ids: Sequence[Sequence[int]],
        question: Sequence[object],
        log_metric: Callable[[str, float], None] | None,
    ) -> list[CompletionReward]:
        # TRL hands the very same list to every function of a batch.
        if completion_ids is not self._judged:
            questions = [question_of(value) for value in question]
            texts = [""] * len(questions)  # the tokens have it
            self._rewards = self.rewarder.rewards(questions, texts, completion_ids)
            self._judged = completion_ids
            if log_metric is not None:
                _log(self._rewards, log_metric)
        return self._rewards


class SegmentAdvantages:
    """PA-GRPO in TRL: a class to put before GRPOTrainer among a trainer's bases.

    `reward_funcs` must have functions called `perception` and `reasoning`; each is normalised over
    its group apart from the other, and reaches the tokens of its own segment
    (`train.algorithms.advantages.segment_advantages`). Other functions are only logged.
    `trace_template` names the form of completions. Raises UsageError for settings with one
    advantage per rollout or with others than those of a group.
    """

    def __init__(self, *arguments: Any, trace_template: str = "p2r", **named: Any) -> None:
        super().__init__(*arguments, **named)
        trainer: Any = self
        self._trace_template = TEMPLATES[trace_template]
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        self._token_bytes = TokenBytes(tokenizer)
        names = trainer.reward_func_names
        if missing := sorted({"perception", "reasoning"} - {*names}):
            raise UsageError(
                f"PA-GRPO needs reward functions called perception and reasoning, and"
                f" {' and '.join(missing)} is not among {', '.join(names)}; give those of"
                " TrlRewards"
            )
        if trainer.scale_rewards not in ("group", "none"):
            raise UsageError(
                f"scale_rewards={trainer.scale_rewards!r}: PA-GRPO scales by a group's standard"
                " deviation (group) or not at all (none)"
            )
        if trainer.importance_sampling_level != "token":
            raise UsageError(
                f"importance_sampling_level={trainer.importance_sampling_level!r} takes one"
                " advantage per rollout; PA-GRPO needs token"
            )

    def _calculate_rewards(self, *arguments: Any) -> Any:
        trainer: Any = super()
        self._of_functions = trainer._calculate_rewards(*arguments)
        return self._of_functions

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        trainer: Any = self
        base: Any = super()
        output = base._generate_and_score_completions(inputs)
        ids, mask = output["completion_ids"], output["completion_mask"]
        names = trainer.reward_func_names
        begin = trainer.accelerator.process_index * len(ids)
        weighted = self._of_functions.double() * trainer.reward_weights.to(
            self._of_functions.device
        )
        perception, reasoning = (
            weighted[:, names.index(name)] for name in ("perception", "reasoning")
        )
        size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        # Groups may lie across processes: all rollouts' rewards are here, the tokens of our own.
        segments = torch.zeros(len(weighted), ids.shape[1], dtype=torch.long, device=ids.device)
        own = slice(begin, begin + len(ids))
        segments[own] = segment_ids(ids, mask, self._token_bytes, self._trace_template)
        advantages = segment_advantages(
            perception, reasoning, segments, size, scale=trainer.scale_rewards == "group"
        )
        output["advantages"] = advantages[own].float()
        return output


def _perception(reward: CompletionReward) -> float:
    if reward.perception is None:
        raise UsageError(
            "nothing rewards perception: the options have no judge and no perception reward"
        )
    return reward.perception.total


def _log(rewards: Sequence[CompletionReward], log_metric: Callable[[str, float], None]) -> None:
    """Means of present values, and which share of the verdicts that were asked for is missing."""
    named: Mapping[str, list[float]] = {
        label: [reward.named[label] for reward in rewards] for label in rewards[0].named
    }
    for label, values in named.items():
        present = [value for value in values if not math.isnan(value)]
        if present:
            log_metric(f"rewards/{label}", sum(present) / len(present))
    verdicts = [reward.verdict.verdict for reward in rewards if reward.verdict is not None]
    if verdicts:
        log_metric("judge/missing", verdicts.count("unscored") / len(verdicts))
