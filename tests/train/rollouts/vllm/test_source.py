"""Completions of a real vLLM server against the learner's pass, before and after new weights.

The runs of `train.rl` at the end share its servers: starting one takes a minute.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.rollout_wire import rollout_wire
from helpers.tiny_rl import read_metrics, render_questions, rl_command, rollouts_of_step, run_rl
from helpers.training_world import question
from peft import get_peft_model

from schemas.questions import VideoQuestion
from train.modeling.families import QWEN2_5_VL
from train.modeling.lora import lora_config
from train.modeling.packed_forward import PromptGroup, group_logprobs
from train.rollouts.segments import TokenBytes
from train.rollouts.streaming import Drawn, ReadAlong, RolloutServerError
from train.rollouts.token_sampling import Sampling

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(900)]

TOKENS, GROUP = 64, 2
# float32, two programs: 4e-6 in practice
EXACT = 1e-4
QUESTIONS = [
    question("slow.mp4"),
    question("dense.mp4"),
    question("still.png"),
    question("still.png", "odd.mp4", problem="Which <|im_end|> is first?"),
    question("odd.mp4", "slow.mp4"),
]


def draw(served: Any, questions: Sequence[VideoQuestion], **more: Any) -> Drawn:
    return served.engine.start(
        questions,
        [served.inputs.prompt(each) for each in questions],
        group_size=GROUP,
        sampling=more.pop("sampling", Sampling(TOKENS)),
        end_ids=served.end_ids,
        seeds=range(len(questions)),
        **more,
    ).wait()


def gap(served: Any, model: Any, questions: Sequence[VideoQuestion], **more: Any) -> float:
    """The largest difference of a token's log-prob between server and learner."""
    drawn = draw(served, questions, **more)
    assert drawn.logprobs is not None
    groups = [
        PromptGroup(served.inputs.prompt(each), tokens)
        for each, tokens in zip(questions, drawn.tokens, strict=True)
    ]
    with torch.no_grad():
        scores = group_logprobs(model, groups)
    return max(
        float((score.logprobs[row, : len(own)] - own).abs().max())
        for score, logprobs in zip(scores, drawn.logprobs, strict=True)
        for row, own in enumerate(logprobs)
    )


def test_videos_images_and_both_have_the_learners_logprobs(served: Any) -> None:
    """Five questions in flight; their token ids are compared by the source itself."""
    model = served.model()
    served.send(model)
    drawn = draw(served, QUESTIONS)
    lengths = [len(each) for group in drawn.tokens for each in group]
    assert max(lengths) == TOKENS
    assert gap(served, model, QUESTIONS) < EXACT


def test_a_seed_gives_a_group_of_different_completions_and_the_same_again(served: Any) -> None:
    first, again = (draw(served, QUESTIONS[:1]).tokens[0] for _ in range(2))
    assert [each.tolist() for each in first] == [each.tolist() for each in again]
    assert first[0].tolist() != first[1].tolist()


def test_after_an_update_of_all_weights_a_video_seen_before_is_seen_anew(served: Any) -> None:
    before, after = served.model(), served.model(change=0.02)
    served.send(before)
    assert gap(served, before, QUESTIONS) < EXACT
    served.send(after)
    assert gap(served, after, QUESTIONS) < EXACT
    assert gap(served, before, QUESTIONS[:1]) > 0.1
    served.send(before)
    assert gap(served, before, QUESTIONS) < EXACT


def test_clearing_the_prefix_cache_alone_leaves_features_of_the_old_tower(served: Any) -> None:
    """What TRL 1.16 does after it has sent weights (huggingface/trl#7198)."""
    before, after = served.model(), served.model(change=0.02)
    served.send(before)
    assert gap(served, before, QUESTIONS[:1]) < EXACT
    served.engine.send_weights(after)
    served.client.post("/reset_prefix_cache")
    assert gap(served, after, QUESTIONS[:1]) > 0.01
    assert gap(served, after, QUESTIONS[1:2]) < EXACT  # not seen since the caches were cleared
    served.send(after)
    assert gap(served, after, QUESTIONS[:1]) < EXACT


def test_adapters_are_merged_into_what_is_sent_and_the_base_stays(served: Any) -> None:
    model = served.model()
    base = {name: own.detach().clone() for name, own in model.named_parameters()}
    adapted = get_peft_model(model, lora_config(4, QWEN2_5_VL))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, own in adapted.named_parameters():
            if "lora_B" in name:
                own.add_(0.1 * torch.randn(own.shape, generator=noise))
    served.send(adapted)
    assert gap(served, adapted, QUESTIONS[:1]) < EXACT
    assert gap(served, served.model(), QUESTIONS[:1]) > 0.01
    kept = {
        name.replace(".base_layer", ""): own
        for name, own in adapted.get_base_model().named_parameters()
        if "lora_" not in name
    }
    assert all(torch.equal(kept[name], base[name]) for name in base)


def test_logprobs_are_those_of_the_restricted_distribution_at_its_temperature(served: Any) -> None:
    model = served.model()
    served.send(model)
    drawn = draw(served, QUESTIONS[:1], sampling=Sampling(16, temperature=0.7, top_k=1))
    assert drawn.logprobs is not None
    assert all(float(own.abs().max()) == 0 for own in drawn.logprobs[0])
    one, other = drawn.tokens[0]
    assert one.tolist() == other.tolist()


def test_tokens_are_read_as_they_come(served: Any) -> None:
    shown: list[str] = []
    reader = ReadAlong(
        QUESTIONS[:1],
        GROUP,
        served.end_ids,
        TokenBytes(served.inputs.tokenizer),
        lambda question, text: shown.append(text) or False,
    )
    drawn = draw(served, QUESTIONS[:1], reader=reader)
    read = TokenBytes(served.inputs.tokenizer)
    whole = {read.text(each.tolist()) for each in drawn.tokens[0]}
    assert len(shown) > 2 * GROUP  # in pieces
    assert whole <= {*shown}


def test_a_server_that_makes_another_prompt_is_refused(served: Any) -> None:
    """As if the learner's chat template were another one."""
    prompt = dict(served.inputs.prompt(QUESTIONS[0]))
    prompt["input_ids"] = prompt["input_ids"].roll(1)
    pending = served.engine.start(
        QUESTIONS[:1],
        [prompt],
        group_size=1,
        sampling=Sampling(4),
        end_ids=served.end_ids,
        seeds=[0],
    )
    with pytest.raises(RolloutServerError, match=r"makes another prompt: .* place 0; serve the"):
        pending.wait()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_questions(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_run_samples_from_the_server_and_moves_its_weights(
    served: Any, world: Path, tmp_path: Path, repository: Path, ahead: int
) -> None:
    out = tmp_path / "out"
    words = rl_command(world, out, *of_server(served.folder, served.url), algo="grpo")
    (tmp_path / "rewards.py").write_text(
        "def length(completion, **_):\n    return float(len(completion) % 7)\n"
    )
    words += ["--rollouts-ahead", str(ahead), "--max-steps", "3", "--reward", "rewards.py:length=1"]
    done = run_rl(words, tmp_path, repository)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = read_metrics(out / "metrics.jsonl")
    gaps = [each["sampler/largest_difference"] for each in steps]
    assert steps[0]["grad_norm"] > 0
    assert gaps[0] < 1e-4
    assert all(each["sampler/truncated"] == 0 for each in steps[:1])
    if ahead:
        assert gaps[2] > 1e-4
    else:
        assert max(gaps) < 1e-4
    assert len(rollouts_of_step(out, 3)) == 6
    assert (out / "model" / "model.safetensors").is_file()


def of_server(folder: Path, url: str) -> list[str]:
    return ["--model", str(folder), "--rollouts", "vllm", "--vllm-url", url]


def test_a_server_that_is_not_vllm_is_a_sentence_and_leaves_the_folder(
    world: Path, tmp_path: Path, repository: Path
) -> None:
    with rollout_wire() as wire:
        wire.says("/v1/models", {"data": []})
        words = rl_command(world, tmp_path / "out", "--rollouts", "vllm", algo="grpo")
        done = run_rl([*words, "--vllm-url", wire.url], tmp_path, repository)
    assert done.returncode == 2
    assert "--vllm-url: the vLLM server" in done.stderr
    assert "names no model" in done.stderr
    assert "Traceback" not in done.stderr
