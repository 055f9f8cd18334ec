"""A real vLLM server of a tiny random model, clips, and a learner's side of it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from helpers.training_world import write_clip, write_still
from helpers.vllm_servers import served_folder, vllm_server

from media.sampling import FrameSpec
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.modeling.loading import load_policy, load_processor
from train.rollouts.vllm.client import VllmClient
from train.rollouts.vllm.source import VllmRollouts


@dataclass
class Served:
    """A server, what it serves, and a learner's side of it."""

    family: str
    url: str
    folder: Path
    clips: Path
    inputs: VideoInputs
    client: VllmClient
    engine: VllmRollouts

    @property
    def end_ids(self) -> list[int]:
        return [self.inputs.tokenizer.convert_tokens_to_ids("<|im_end|>")]

    def model(self, *, change: float = 0.0) -> Any:
        """The served model, all of its weights (the tower's too) moved by noise."""
        model = load_policy(str(self.folder), dtype="float32", device="cpu")
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(change * torch.randn(parameter.shape, generator=noise))
        return model

    def send(self, model: Any) -> None:
        """By a sender of its own: whoever else has sent weights since does not matter."""
        engine = VllmRollouts(self.client, self.inputs)
        engine.pause()
        engine.send_weights(model)
        engine.resume()
        engine.close()


@contextlib.contextmanager
def serving(family: str, root: Path) -> Iterator[Served]:
    """A server without a warm-up; its weights are those of its folder."""
    folder, clips = served_folder(family), root / "clips"
    write_clip(clips / "slow.mp4", size=(84, 112))  # cells 1 s apart
    write_clip(clips / "dense.mp4", rate=8, size=(84, 112), seed=1)  # 0.25 s apart
    write_clip(clips / "odd.mp4", num_frames=5, rate=3, size=(70, 130), seed=2)
    write_still(clips / "still.png", size=(70, 130), seed=3)
    with (
        vllm_server(folder, root) as url,
        FrameLoader(clips, spec=FrameSpec("uniform:8", 112 * 84), cache_dir=None) as loader,
    ):
        inputs = VideoInputs(load_processor(str(folder)), loader, TEMPLATES["p2r"])
        client = VllmClient(url)
        engine = VllmRollouts(client, inputs)
        yield Served(family, url, folder, clips, inputs, client, engine)
        engine.close()
