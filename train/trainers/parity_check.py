"""Parity check of sampler and trainer, before the first step.

One question's completion is computed three ways: by the sampler that training uses, by
transformers' own `generate` on the processor's output, and by the pass that log-probs are trained
with. A video that is lost on one of them, other positions or another template show as a difference.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from train.modeling.families import family_of
from train.modeling.packed_forward import PromptGroup, group_logprobs
from train.modeling.prompt_tensors import MEDIA, frames_of_prompt, prompt_positions
from train.modeling.sharding import unwrapped, whole_weights
from train.rollouts.sampler import sample_completions
from train.rollouts.token_sampling import Sampling

_TOKENS = 8
# Natural log. Passes in float32 differ by some 1e-5; in bfloat16 by some 0.05.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}


class ParityError(Exception):
    """Sampler and trainer differ: what differs, and by how much. One sentence."""


@torch.no_grad()
def check_parity(
    model: Any,
    prompt: Mapping[str, Tensor],
    *,
    end_ids: Sequence[int],
    share_prompts: bool = True,
    autocast_dtype: torch.dtype = torch.float32,
) -> None:
    """Raise ParityError where the three ways differ on `prompt`. Every process calls this.

    `autocast_dtype` is what passes compute in; 8 greedy tokens are compared.
    """
    bare = unwrapped(model)
    was_training = model.training
    model.eval()
    try:
        check_vision_tokens(bare.config, prompt)
        _check_completion(model, bare, prompt, end_ids, share_prompts, autocast_dtype)
    finally:
        model.train(was_training)


def check_vision_tokens(config: Any, prompt: Mapping[str, Tensor]) -> None:
    """Raise ParityError unless each medium has the tokens and pixels that its grid asks for."""
    tokens = family_of(config).vision_tokens(config)
    merged = tokens.merge_size**2
    ids = prompt["input_ids"]
    for kind, token in (("video", tokens.video_id), ("image", tokens.image_id)):
        names = MEDIA[kind]
        num_tokens = int((ids == token).sum())
        grids = prompt.get(names.grid)
        num_patches = 0 if grids is None else int(grids.prod(dim=1).sum())
        num_pixels = 0 if prompt.get(names.pixels) is None else len(prompt[names.pixels])
        if num_tokens * merged != num_patches or num_patches != num_pixels:
            raise ParityError(
                f"the prompt holds {num_tokens} {kind} tokens, but its {kind} has {num_patches}"
                f" patches, {merged} to a token, and pixels for {num_pixels}: model, processor and"
                " chat template do not belong together"
            )
    if not (ids == tokens.video_id).any() and not (ids == tokens.image_id).any():
        raise ParityError(
            "the prompt holds no token of a video or an image: the chat template drops media"
        )
    if (ids == tokens.video_id).any():
        frames_of_prompt(config, prompt)


def _check_completion(
    model: Any,
    bare: Any,
    prompt: Mapping[str, Tensor],
    end_ids: Sequence[int],
    share_prompts: bool,
    dtype: torch.dtype,
) -> None:
    device = bare.get_input_embeddings().weight.device
    inputs = {name: value.to(device) for name, value in prompt.items()}
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        ((sampled,),) = sample_completions(
            model,
            [inputs],
            group_size=1,
            sampling=Sampling(_TOKENS, temperature=0.0),
            end_ids=end_ids,
            seeds=[0],
            share_prompts=share_prompts,
        )
        with whole_weights(model):
            tokens, logprobs = _generated(bare, inputs, end_ids)
        group = PromptGroup(inputs, [tokens])
        (learned,) = group_logprobs(model, [group], share_prompts=share_prompts)
    difference = (learned.logprobs[0] - logprobs).abs()
    worst = int(difference.argmax())
    tolerance = _TOLERANCE[dtype]
    if not difference[worst] <= tolerance:
        raise ParityError(
            f"token {worst} of a completion has log-prob {logprobs[worst]:.4f} where transformers"
            f" generates it, but {learned.logprobs[0, worst]:.4f} where it is learned from (at most"
            f" {tolerance} may lie between): the passes do not see the same video or positions;"
            " --no-share-prompts takes the plain path"
        )
    if sampled.tolist() != tokens.tolist():
        _refuse_other_tokens(model, inputs, sampled, tokens, tolerance, share_prompts)


def _generated(
    bare: Any, inputs: Mapping[str, Tensor], end_ids: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Greedy tokens [C] of transformers' own generation, and their log-probs [C]."""
    given = dict(inputs)
    ids = given.pop("input_ids")
    positions = prompt_positions(bare, inputs)[:, None]
    text = torch.arange(ids.shape[1], device=ids.device).expand(1, 1, -1)
    given["position_ids"] = torch.cat([text, positions])
    given.setdefault("attention_mask", torch.ones_like(ids))
    proposed = bare.generation_config
    bare.generation_config = type(proposed)()
    try:
        output = bare.generate(
            input_ids=ids,
            do_sample=False,
            max_new_tokens=_TOKENS,
            eos_token_id=list(end_ids),
            pad_token_id=end_ids[0],
            output_logits=True,
            return_dict_in_generate=True,
            **given,
        )
    finally:
        bare.generation_config = proposed
    tokens = output.sequences[0, ids.shape[1] :]
    steps = torch.stack(output.logits)[:, 0].float().log_softmax(dim=-1)
    return tokens, steps.gather(-1, tokens[:, None])[:, 0]


def _refuse_other_tokens(
    model: Any,
    inputs: Mapping[str, Tensor],
    sampled: Tensor,
    tokens: Tensor,
    tolerance: float,
    share_prompts: bool,
) -> None:
    """Greedy tokens may differ where two are as probable as each other, and nowhere else."""
    shorter = min(len(sampled), len(tokens))
    sampled, tokens = sampled[:shorter].to(tokens.device), tokens[:shorter]
    differing = (sampled != tokens).nonzero()
    if not len(differing):
        return
    first = int(differing[0])
    group = PromptGroup(inputs, [sampled[: first + 1], tokens[: first + 1]])
    (scores,) = group_logprobs(model, [group], share_prompts=share_prompts)
    ours, theirs = scores.logprobs[:, first].tolist()
    if abs(ours - theirs) > tolerance:
        raise ParityError(
            f"the sampler gives token {int(sampled[first])} at place {first}, where transformers"
            f" generates {int(tokens[first])}, which is not as probable ({ours:.4f} and"
            f" {theirs:.4f}): sampling does not see what generation sees; --no-share-prompts takes"
            " the plain path"
        )
