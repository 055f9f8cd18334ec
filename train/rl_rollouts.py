"""The rollout engine of a run of reinforcement learning: opened from its options, and checked.

Completions of `--rollouts inprocess` need none: the trainer samples them itself.
"""

from typing import Any

import torch

from cli.config import UsageError, say
from train.data.model_inputs import VideoInputs
from train.rl_options import RlOptions
from train.rollouts.streaming import RolloutServerError
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.client import VllmClient
from train.rollouts.vllm.source import VllmRollouts
from train.trainers.distributed import is_first_process, process_number
from train.trainers.sampler_check import SamplerTolerance, sampler_tolerance


def opened_engine(config: RlOptions, inputs: VideoInputs, arguments: Any) -> VllmRollouts | None:
    """The engine that --rollouts names; None for sampling in this process. Raises UsageError."""
    if config.rollouts != "vllm":
        return None
    assert config.vllm_url is not None, "rl_checks looks at it"
    client = VllmClient(config.vllm_url, seconds=config.vllm_timeout_seconds)
    dtype = computing_dtype(arguments)
    try:
        engine = VllmRollouts(
            client,
            inputs,
            rank=process_number(),
            dtype=None if dtype == torch.float32 else dtype,
            trainer_host=config.trainer_host,
        )
    except RolloutServerError as error:
        raise UsageError(f"--vllm-url: {error}") from None
    if is_first_process():
        say(f"completions are sampled by the vLLM server {client.url}")
    return engine


def tolerance_of(config: RlOptions, arguments: Any) -> SamplerTolerance | None:
    """What may lie between server and learner at first; None where nothing is checked."""
    if not config.parity_check:
        return None
    sampling = Sampling(
        arguments.max_completion_length,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k or 0,
        min_p=arguments.min_p or 0.0,
        repetition_penalty=arguments.repetition_penalty,
    )
    return sampler_tolerance(computing_dtype(arguments), sampling)


def computing_dtype(arguments: Any) -> torch.dtype:
    """What passes compute in."""
    if arguments.bf16:
        return torch.bfloat16
    return torch.float16 if arguments.fp16 else torch.float32
