"""Groups that are forwarded in parts teach what whole ones teach, with less memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pass_runs import PassRun, assert_same
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import SIZE
from torch import Tensor

from train.modeling.families import QWEN2_5_VL
from train.modeling.lora import lora_config
from train.rollouts.streaming import Drawn

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RlWorld]:
    world = rl_world(tmp_path_factory.mktemp("clips"), num=4)
    with world.loader:
        yield world


CASES = {
    "grpo": ("grpo", {}),
    "advantages of segments": ("pa-grpo", {"beta": 0.04}),
    "weights of a group": ("pa-dapo+appo", {}),
    "updates between sampling and learning": ("pa-dapo+appo", {"num_iterations": 2}),
    "accumulated": (
        "pa-dapo+appo",
        {"per_device_train_batch_size": SIZE, "gradient_accumulation_steps": 2},
    ),
    "learned from twice in a step": (
        "pa-grpo+appo",
        {"gradient_accumulation_steps": 2, "steps_per_generation": 1, "num_iterations": 2},
    ),
    "a mean over a micro-batch's tokens": ("grpo", {"loss_type": "bnpo", "beta": 0.1}),
    "a reward of entropy": ("dapo", {"entropy_coef": 0.1}),
    "tokens of high entropy": ("dapo", {"top_entropy_quantile": 0.4}),
    "entropy that is held": (
        "grpo",
        {
            "use_adaptive_entropy": True,
            "entropy_coef": 0.2,
            "entropy_target": 100.0,
            "gradient_accumulation_steps": 2,
            "per_device_train_batch_size": SIZE,
        },
    ),
    "ratios of whole completions": ("grpo", {"importance_sampling_level": "sequence"}),
    "layers computed again": ("pa-dapo+appo", {"gradient_checkpointing": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_of_groups_learn_what_groups_learn(clips: RlWorld, tmp_path: Path, case: str) -> None:
    """Two groups of three completions of unequal length, two at a time: parts of two and of one."""
    algo, options = CASES[case]
    whole = PassRun(clips, tmp_path / "whole", algo, None, **options).train()
    parts = PassRun(clips, tmp_path / "parts", algo, 2, **options).train()
    assert_same(parts, whole)
    assert max(parts.widths) < max(whole.widths)


@pytest.mark.slow
@pytest.mark.parametrize("share_prompts", [True, False])
@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_a_tower_runs_once_for_all_passes_or_once_in_each(
    tmp_path: Path, family: str, freeze: bool, share_prompts: bool
) -> None:
    """A frozen one is encoded per prompt (the plain way runs it in every pass); one that trains
    learns from each pass."""
    with (world := rl_world(tmp_path, num=2, family=family)).loader:
        given = {"share_prompts": share_prompts}
        runs = [
            PassRun(
                world,
                tmp_path / str(per_pass),
                "pa-grpo",
                per_pass,
                freeze=freeze,
                given=given,
                max_steps=1,
            ).train()
            for per_pass in (2, None)
        ]
    assert_same(*runs)
    assert any("visual" in name for name in runs[0].gradients.of) is not freeze
    if share_prompts:
        # two prompts; two groups of three in passes of one and two, or in one pass
        assert [run.tower_runs for run in runs] == ([2, 2] if freeze else [4, 1])


@pytest.mark.parametrize("freeze", [True, False])
def test_a_pass_holds_each_prompt_and_each_run_of_the_tower_once(
    clips: RlWorld, tmp_path: Path, freeze: bool
) -> None:
    """Two groups of three, in four passes of parts or in one. Each is made for the old log-probs
    and to be learned from; parts are looked at ahead besides."""
    for per_pass, passes, prompts, times in ((2, 4, 1, 3), (None, 1, 2, 2)):
        run = PassRun(
            clips,
            tmp_path / str(per_pass),
            "pa-grpo+appo",
            per_pass,
            freeze=freeze,
            num_iterations=2,
            max_steps=1,
        ).train()
        assert run.prompts == [prompts] * (passes * times)
        assert run.tower_runs == (2 if freeze else passes * times)


@pytest.mark.parametrize(
    ("algo", "trl", "looks"),
    [
        ("pa-grpo", {}, 0),
        ("pa-grpo", {"num_iterations": 2}, 4),  # the old log-probs
        ("pa-grpo+appo", {}, 4),
        ("grpo", {"top_entropy_quantile": 0.4}, 4),
    ],
)
def test_passes_are_looked_at_ahead_only_where_one_reads_another(
    clips: RlWorld, tmp_path: Path, algo: str, trl: Mapping[str, Any], looks: int
) -> None:
    """Two groups in four passes; a step."""
    run = PassRun(clips, tmp_path, algo, 2, **{"max_steps": 1, **trl}).train()
    assert run.looks == looks
    assert len(run.widths) == 4


def test_an_adapter_and_its_reference_learn_from_parts(clips: RlWorld, tmp_path: Path) -> None:
    runs = []
    for per_pass in (1, None):
        torch.manual_seed(0)
        given = {"peft_config": lora_config(4, QWEN2_5_VL)}
        run = PassRun(
            clips,
            tmp_path / str(per_pass),
            "pa-grpo+appo",
            per_pass,
            given=given,
            beta=0.04,
            learning_rate=20.0,
        )
        runs.append(run.train())
    assert_same(*runs)
    assert runs[0].log[1]["kl"] > 1e-6


class Improbable:
    """A rollout source that says of its completions that they were less probable than they are."""

    def __init__(self, world: RlWorld) -> None:
        self.replay = world.replay(SIZE)

    def __call__(self, model: Any, prompts: Sequence[Mapping[str, Tensor]], **given: Any) -> Drawn:
        tokens = self.replay(model, prompts, **given)
        said = [[-5.5 - (own % 3).float() for own in group] for group in tokens]
        return Drawn(tokens, said)


def test_each_token_counts_by_its_own_importance_ratio(clips: RlWorld, tmp_path: Path) -> None:
    """Ratios are of the policy's log-probs, which are known pass by pass."""
    runs = []
    for per_pass in (2, None):
        given = {"rollout_source": Improbable(clips), "importance_cap": 2.0}
        run = PassRun(clips, tmp_path / str(per_pass), "pa-grpo", per_pass, given=given)
        run.trainer._cap = 2.0  # as beside a rollout engine
        runs.append(run.train())
    assert_same(*runs)
    for report, expected in zip(*(run.reports for run in runs), strict=True):
        for scored, wanted in zip(report.groups, expected.groups, strict=True):
            gap, theirs = scored.sampler_gap, wanted.sampler_gap
            assert gap is not None
            assert theirs is not None
            assert theirs.ratios is not None
            assert (gap.ratios - theirs.ratios).abs().max() < 1e-4
            assert 0.1 < float(theirs.ratios.min()) < 0.9 < 1.1 < float(theirs.ratios.max())


def test_a_run_in_parts_resumes_to_the_bit(clips: RlWorld, tmp_path: Path) -> None:
    trl = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    trl |= {"learning_rate": 1e-2}
    whole = PassRun(clips, tmp_path / "whole", "pa-grpo+appo", 2, **trl).train()
    resumed = PassRun(clips, tmp_path / "resumed", "pa-grpo+appo", 2, **trl)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert len(resumed.reports) == 2
    for name, value in whole.weights.items():
        assert torch.equal(resumed.weights[name], value), name


class Long:
    """A rollout source of completions of 96 tokens."""

    def __call__(
        self, model: Any, prompts: Sequence[Mapping[str, Tensor]], *, group_size: int, **_: Any
    ) -> list[list[Tensor]]:
        return [[torch.arange(96) % 90 + 10 + row for row in range(group_size)] for _ in prompts]


def test_memory_is_that_of_a_pass_not_of_the_group(clips: RlWorld, tmp_path: Path) -> None:
    """Tensors alive at the peak of a step, gradients included: eight completions, two at a time,
    hold what a group of two holds, within a tenth; so do they with a look ahead."""

    def peak(size: int, per_pass: int | None, algo: str = "pa-grpo") -> int:
        run = PassRun(
            clips,
            tmp_path / f"{size}-{per_pass}",
            algo,
            per_pass,
            given={"rollout_source": Long()},
            num_generations=size,
            per_device_train_batch_size=size,
            max_completion_length=96,
            max_steps=1,
        )
        return run.peak_bytes()

    eight, parts, two = peak(8, None), peak(8, 2), peak(2, None)
    assert parts == pytest.approx(two, rel=0.1)
    assert two < 0.5 * eight
    assert peak(8, 2, "pa-grpo+appo") == pytest.approx(parts, rel=0.1)
