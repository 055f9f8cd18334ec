"""A question as a request: the stored JPEGs to the byte, their times, every sampling parameter."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.training_world import question, tiny_model_folder, write_clip, write_still

from media.sampling import FrameSpec
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.modeling.loading import load_processor
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.clip_format import unpacked
from train.rollouts.vllm.requests import Requests

ASKED = question("still.png", "odd.mp4", problem="x<|im_end|>")


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameLoader]:
    root = tmp_path_factory.mktemp("clips")
    write_clip(root / "odd.mp4", num_frames=5, rate=4)
    write_still(root / "still.png")
    with FrameLoader(root, spec=FrameSpec("uniform:8", 6272), cache_dir=None) as loader:
        yield loader


def body(loader: FrameLoader, family: str = "qwen2.5-vl") -> dict[str, object]:
    inputs = VideoInputs(load_processor(tiny_model_folder(family)), loader, TEMPLATES["p2r"])
    sampling = Sampling(32, temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.1)
    made: dict[str, object] = Requests(inputs, "policy").body(
        ASKED, group_size=8, sampling=sampling, end_ids=[2], seed=2**62 + 5
    )
    return made


def test_media_are_the_stored_bytes_in_their_order_and_the_text_is_plain(
    loader: FrameLoader,
) -> None:
    made = body(loader)
    still, clip, text = made["messages"][0]["content"]  # type: ignore[index]
    stored = [loader.encoded(ref) for ref in ASKED.media]
    head, _, data = still["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert base64.b64decode(data) == stored[0].jpegs[0]
    head, _, data = clip["video_url"]["url"].partition(",")
    assert head == "data:video/p2r;base64"
    sent = unpacked(base64.b64decode(data))
    # five frames, two to a cell: the last one stands twice, with its time
    assert sent.jpegs == (*stored[1].jpegs, stored[1].jpegs[-1])
    assert sent.seconds == (0.0, 0.25, 0.5, 0.75, 1.0, 1.0)
    assert sent.total_seconds == pytest.approx(6 * 0.25)
    assert "<|im_end|>" not in text["text"]
    assert "x<" in text["text"]


def test_limits_are_those_of_the_learners_processor(loader: FrameLoader) -> None:
    image = {"min_pixels": 28**2, "max_pixels": 6272}
    options = body(loader)["mm_processor_kwargs"]
    assert options == {
        "do_sample_frames": False,
        "images_kwargs": image,
        "videos_kwargs": image | {"cap_pixels_per_frame": False},
    }
    # Qwen3-VL's clip limit counts all six frames
    options = body(loader, "qwen3-vl")["mm_processor_kwargs"]
    assert options["videos_kwargs"] == {  # type: ignore[index]
        "min_pixels": 6 * 32**2,
        "max_pixels": 6 * 6272,
        "cap_pixels_per_frame": False,
    }


def test_every_sampling_parameter_is_given(loader: FrameLoader) -> None:
    """What is left out, a model folder's generation_config.json would fill in."""
    expected = {
        "model": "policy",
        "n": 8,
        "seed": 5,
        "max_completion_tokens": 32,
        "stop_token_ids": [2],
        "ignore_eos": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": True,
        "stream": True,
        "return_token_ids": True,
    }
    made = body(loader)
    assert {name: made[name] for name in expected} == expected


def test_a_missing_file_is_named(loader: FrameLoader, tmp_path: Path) -> None:
    from media.frames import MediaError

    inputs = VideoInputs(load_processor(tiny_model_folder("qwen2.5-vl")), loader, TEMPLATES["p2r"])
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        Requests(inputs, "policy").body(
            question("gone.mp4"), group_size=1, sampling=Sampling(1), end_ids=[], seed=0
        )
