"""Generations of a rollout engine: whose weights sampled them, their order, and their ratio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.replays import RlWorld, rl_world
from helpers.rl_settings import Gradients, settings
from helpers.sharded import spawn
from torch import Tensor

from schemas.questions import VideoQuestion
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.modeling.packed_forward import PromptGroup, group_logprobs
from train.rollouts.streaming import Drawn, RolloutServerError
from train.rollouts.vllm.weights import PolicyWeights
from train.trainers.generations import RowOrder
from train.trainers.grpo_trainer import ROW, VideoGRPOTrainer
from train.trainers.parity_check import ParityError
from train.trainers.sampler_check import SamplerTolerance
from train.trainers.step_report import StepReport

pytestmark = pytest.mark.heavy

SIZE = 3
EXACT = SamplerTolerance(1e-3, 1e-3)


@dataclass
class Begun:
    """Completions that are there at once, as the weights of that moment rate them."""

    drawn: Drawn

    def wait(self) -> Drawn:
        return self.drawn


@dataclass
class ReplayEngine:
    """A rollout engine that replays completions and rates them with the weights it was sent."""

    world: RlWorld
    shift: float = 0.0
    calls: list[str] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    model: Any = None

    def pause(self) -> None:
        self.calls.append("pause")

    def send_weights(self, model: Any) -> None:
        self.calls.append("send")
        self.model = self.world.model()
        self.model.load_state_dict(dict(PolicyWeights(model)), strict=False)

    def resume(self) -> None:
        self.calls.append("resume")

    def refuse_other_weights(self) -> None:
        self.calls.append("look")

    def start(
        self,
        questions: Sequence[VideoQuestion],
        prompts: Sequence[Mapping[str, Tensor]],
        *,
        group_size: int,
        **given: Any,
    ) -> Begun:
        self.calls.append("start")
        self.asked.append([each.question_id for each in questions])
        tokens = self.world.replay(SIZE)(None, prompts, group_size=group_size, seeds=given["seeds"])
        groups = [PromptGroup(p, list(own)) for p, own in zip(prompts, tokens, strict=True)]
        with torch.no_grad():
            scores = group_logprobs(self.model, groups)
        logprobs = [
            [score.logprobs[row, : len(own)] - self.shift for row, own in enumerate(group)]
            for score, group in zip(scores, tokens, strict=True)
        ]
        return Begun(Drawn([list(own) for own in tokens], logprobs))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> RlWorld:
    return rl_world(tmp_path_factory.mktemp("clips"), num=4)


def trainer(
    world: RlWorld, folder: Path, engine: Any, *, options: Mapping[str, Any], **more: Any
) -> VideoGRPOTrainer:
    spec = parse_algo("pa-grpo")
    given = {"per_device_train_batch_size": SIZE, "max_completion_length": 24, "beta": 0.0}
    return VideoGRPOTrainer(
        world.model(),
        settings(folder, spec.name, **given | dict(options)),
        world.rows,
        processor=world.processor,
        template=world.template,
        credit=CreditAssignment(spec, scale=spec.scale),
        rewarder=world.rewards(),
        engine=engine,
        **more,
    )


def reports(world: RlWorld, folder: Path, engine: Any, **more: Any) -> list[StepReport]:
    seen: list[StepReport] = []
    observe = lambda report: seen.append(report) or {}  # noqa: E731
    trainer(world, folder, engine, observe=observe, **more).train()
    return seen


def largest_gap(report: StepReport) -> float:
    gaps = [each.sampler_gap for each in report.groups]
    return max(float(gap.differences.abs().max()) for gap in gaps if gap is not None)


@pytest.mark.slow
def test_each_generation_is_sampled_with_the_weights_that_learn_from_it(
    clips: RlWorld, tmp_path: Path
) -> None:
    engine = ReplayEngine(clips)
    seen = reports(clips, tmp_path, engine, options={"max_steps": 3}, sampler_tolerance=EXACT)
    assert engine.calls == ["pause", "send", "resume", "start", "look"] * 3
    assert [largest_gap(each) < 1e-5 for each in seen] == [True] * 3


def test_ahead_it_is_sampled_with_those_of_one_generation_before(
    clips: RlWorld, tmp_path: Path
) -> None:
    engine = ReplayEngine(clips)
    seen = reports(
        clips,
        tmp_path,
        engine,
        options={"max_steps": 6},  # four rows: the order goes on into the second epoch
        rollouts_ahead=1,
        sampler_tolerance=EXACT,
    )
    # the first and, with the same weights, the second; then always the next one; none at the end
    ahead = ["look", "pause", "send", "resume", "start"]
    assert engine.calls == [*ahead[1:], "look", "start", *ahead * 4, "look"]
    learned = [[each.group.question.question_id for each in report.groups] for report in seen]
    assert engine.asked == learned
    assert largest_gap(seen[0]) < 1e-5 < 1e-3 < min(map(largest_gap, seen[1:]))
    for report in seen[1:]:
        for each in report.groups:
            assert each.sampler_gap is not None
            assert each.sampler_gap.ratios is not None
            assert torch.allclose(
                each.sampler_gap.ratios, each.sampler_gap.differences.exp().clamp(max=2)
            )


@pytest.mark.slow
def test_a_run_that_resumes_ahead_samples_again_and_learns_the_same_rows(
    clips: RlWorld, tmp_path: Path
) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = ReplayEngine(clips)
    trainer(clips, tmp_path, whole, options=options, rollouts_ahead=1).train()
    again = ReplayEngine(clips)
    resumed = trainer(clips, tmp_path, again, options=options, rollouts_ahead=1)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.asked == whole.asked[2:]
    assert again.calls[:4] == ["pause", "send", "resume", "start"]


def test_the_ratio_scales_what_each_token_teaches(clips: RlWorld, tmp_path: Path) -> None:
    """A sampler that rates every token ln 1.5 lower: each gradient counts one and a half times."""
    gradients = {}
    for shift in (0.0, float(torch.tensor(1.5).log())):
        seen = Gradients()
        engine = ReplayEngine(clips, shift=shift)
        trainer(clips, tmp_path, engine, options={"max_steps": 1}, callbacks=[seen]).train()
        gradients[shift] = seen.of
    plain, scaled = gradients.values()
    largest = max(float(each.abs().max()) for each in plain.values())
    assert largest > 0
    for name, gradient in plain.items():
        assert torch.allclose(scaled[name], 1.5 * gradient, atol=1e-4 * largest), name


def test_a_server_of_other_weights_or_videos_is_refused_at_the_first_step(
    clips: RlWorld, tmp_path: Path
) -> None:
    engine = ReplayEngine(clips, shift=0.1)
    one = trainer(clips, tmp_path, engine, options={"max_steps": 1}, sampler_tolerance=EXACT)
    with pytest.raises(ParityError, match=r"by 0\.1000 on average and 0\.1000 at most"):
        one.train()


def test_a_server_that_fails_ends_training_with_its_sentence(
    clips: RlWorld, tmp_path: Path
) -> None:
    class Failing(ReplayEngine):
        def resume(self) -> None:
            raise RolloutServerError("the vLLM server has gone")

    one = trainer(clips, tmp_path, Failing(clips), options={"max_steps": 1})
    with pytest.raises(RolloutServerError, match="has gone"):
        one.train()


def test_completions_of_weights_that_another_run_sent_are_not_learned_from(
    clips: RlWorld, tmp_path: Path
) -> None:
    class Replaced(ReplayEngine):
        def refuse_other_weights(self) -> None:
            raise RolloutServerError("the vLLM server has other weights than it was sent")

    one = trainer(clips, tmp_path, Replaced(clips), options={"max_steps": 1})
    before = one.model.get_input_embeddings().weight.detach().clone()
    with pytest.raises(RolloutServerError, match="other weights"):
        one.train()
    assert torch.equal(one.model.get_input_embeddings().weight, before)


@pytest.mark.parametrize(("accumulation", "per_generation", "iterations"), [(1, 1, 2), (2, 2, 1)])
def test_the_order_of_rows_is_that_of_trls_data_loader(
    clips: RlWorld, tmp_path: Path, accumulation: int, per_generation: int, iterations: int
) -> None:
    one = trainer(
        clips,
        tmp_path,
        ReplayEngine(clips),
        options={
            "max_steps": 4,
            "gradient_accumulation_steps": accumulation,
            "steps_per_generation": per_generation,
            "num_iterations": iterations,
        },
    )
    batches = [[row[ROW] for row in batch] for batch in one.get_train_dataloader()]
    came = [batch[::SIZE] for batch in batches[:: per_generation * iterations]]
    assert len(came) > 1
    for rows, following in pairwise(came):
        assert one._row_order.after(rows, 0) == following


def test_each_process_has_its_own_part_of_a_generation() -> None:
    # two generations of four rows, each twice in a row; two rollouts of a row, two processes
    order = [7, 7, 5, 5, 7, 7, 5, 5, 2, 2, 9, 9, 2, 2, 9, 9]
    epochs = {0: order, 1: [each + 10 for each in order]}
    parts = [
        RowOrder(
            epochs.__getitem__,
            generation_size=4,
            repeats=2,
            group_size=2,
            process=process,
            num_processes=2,
        )
        for process in range(2)
    ]
    assert parts[0].after([7], 0) == [2]
    assert parts[1].after([5], 0) == [9]
    assert parts[1].after([9], 0) == [15]
    with pytest.raises(RuntimeError, match=r"rows \[5\] are no generation of epoch 0"):
        parts[0].after([5], 0)


def ahead_in_a_group(rank: int, root: Path) -> None:
    """One of two processes: a run of three steps ahead, and what its engine was asked."""
    world = rl_world(root / str(rank), num=8)
    with world.loader:
        engine = ReplayEngine(world)
        options = {"max_steps": 5, "ddp_backend": "gloo"}
        trainer(world, root / "out", engine, options=options, rollouts_ahead=1).train()
    torch.save({"asked": engine.asked, "calls": engine.calls}, root / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_sample_their_own_rows_ahead_and_one_pauses_the_server(
    tmp_path: Path,
) -> None:
    """Into a second epoch; rows that did not come next would end both."""
    spawn(ahead_in_a_group, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert len(first["asked"]) == len(second["asked"]) == 5
    epoch = [one for pair in zip(first["asked"], second["asked"], strict=True) for one in pair][:8]
    assert len({name for names in epoch for name in names}) == 8
    # the first two generations have the first weights
    assert first["calls"].count("pause") == first["calls"].count("resume") == 4
    assert {*second["calls"]} == {"send", "start"}
