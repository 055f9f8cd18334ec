"""A question as a request to a vLLM server: text, stored JPEGs with their times, sampling.

The server's processor and chat template make the prompt's tokens again. They must come out as ours:
`train.rollouts.vllm.source` compares them and refuses where they do not.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.questions import MediaRef, VideoQuestion
from train.data.model_inputs import VideoInputs
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.clip_format import LOADER, MEDIA_TYPE, Clip, packed

_TOKENS_PER_EVENT = 16
# Seeds of vLLM are 64 bits with a sign, and each completion of a group takes the next one.
_SEEDS = 2**62


class Requests:
    """Makes the bodies of `/v1/chat/completions` for questions, as `inputs` prepares them.

    `model` is the name under which the server has its model.
    """

    def __init__(self, inputs: VideoInputs, model: str) -> None:
        self._inputs, self._model = inputs, model

    def body(
        self,
        question: VideoQuestion,
        *,
        group_size: int,
        sampling: Sampling,
        end_ids: Sequence[int],
        seed: int,
        media: Sequence[MediaRef] | None = None,
    ) -> dict[str, Any]:
        """A stream of `group_size` completions. Raises MediaError that names a file.

        `media` replaces the question's own files.
        """
        shown = question.media if media is None else media
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": self._content(question, shown)}],
            "media_io_kwargs": {"video": {"video_backend": LOADER, "num_frames": -1}},
            "mm_processor_kwargs": self._processor_options(shown),
            "n": group_size,
            "seed": seed % _SEEDS,
            "max_completion_tokens": sampling.max_new_tokens,
            "stop_token_ids": list(end_ids),
            "ignore_eos": True,
            "logprobs": True,
            "top_logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
            "stream": True,
            "stream_interval": _TOKENS_PER_EVENT,
            **_sampling(sampling),
        }

    def _content(self, question: VideoQuestion, media: Sequence[MediaRef]) -> list[dict[str, Any]]:
        """The parts of the user's turn: the media in their order, then the text."""
        (turn,) = self._inputs.messages(question, media=media)
        text = [part for part in turn["content"] if part["type"] == "text"]
        return [*map(self._medium, media), *text]

    def _medium(self, ref: MediaRef) -> dict[str, Any]:
        frames = self._inputs.loader.encoded(ref)
        if ref.kind == "image":
            url = f"data:image/jpeg;base64,{b64encode(frames.jpegs[0]).decode()}"
            return {"type": "image_url", "image_url": {"url": url}}
        times = self._inputs.media_processor.clip(frames)
        spare = len(times.seconds) - len(frames)
        clip = Clip((*frames.jpegs, *frames.jpegs[-1:] * spare), times.seconds, times.total_seconds)
        url = f"data:{MEDIA_TYPE};base64,{b64encode(packed(clip)).decode()}"
        return {"type": "video_url", "video_url": {"url": url}}

    def _processor_options(self, media: Sequence[MediaRef]) -> dict[str, Any]:
        """Limits under which the processor only rounds to whole tokens.

        Where a family counts the pixels of all frames of a clip, the longest clip's limit is that
        of all: vLLM takes one for a request. vLLM 0.31 makes a `size` of its own out of limits for
        Qwen3-VL's clips, and a second `size` beside it is an error: so limits are given as pixels,
        which transformers knows for pictures alone, and so always with those of pictures.
        """
        processor = self._inputs.media_processor
        options: dict[str, Any] = {
            "do_sample_frames": False,
            "images_kwargs": _pixels(processor.image_size),
        }
        sizes = [
            processor.clip(self._inputs.loader.encoded(ref)).size
            for ref in media
            if ref.kind == "video"
        ]
        if sizes:
            size = max(sizes, key=lambda each: each["longest_edge"])
            options["videos_kwargs"] = {**_pixels(size), **processor.video_options}
        return options


def _pixels(size: Mapping[str, int]) -> dict[str, int]:
    return {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}


def _sampling(sampling: Sampling) -> Mapping[str, float | int]:
    """Every parameter, given: a model folder's own defaults would fill in what is left out."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
