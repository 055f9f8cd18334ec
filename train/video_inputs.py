"""From questions and files to what a model is given: one place decides pixels and tokens.

Fine-tuning, sampling and evaluation all ask here, so a clip has the same pixels, tokens, times and
positions in each. Pixels and the tokens of a medium are the model's own processor's
(`train.prepared_media`), the text is the template's prompt in the model's own chat template.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.prompting import task_prompt
from schemas.questions import MediaRef, VideoQuestion
from schemas.traces import TraceTemplate
from train.frame_loader import FrameLoader
from train.models import processor_family, tokens_per_second
from train.positions import qwen2_5_positions
from train.prepared_media import MediaProcessor, Vision


@dataclass(frozen=True)
class PromptText:
    """A prompt as token ids, in which one placeholder id stands for each medium, in order."""

    ids: "np.ndarray[Any, Any]"
    media: tuple[MediaRef, ...]


class VideoInputs:
    """Model inputs for questions of one dataset, by one model's processor and one template."""

    def __init__(self, processor: Any, loader: FrameLoader, template: TraceTemplate) -> None:
        self.processor = processor
        self.loader = loader
        self.template = template
        self.tokenizer = processor.tokenizer
        self._family = processor_family(processor)
        self._tokens_per_second = tokens_per_second(processor)
        self._media = MediaProcessor(processor, loader)
        self._media_ids = {
            "image": int(processor.image_token_id),
            "video": int(processor.video_token_id),
        }
        markers = sorted(set(self.tokenizer.all_special_tokens), key=len, reverse=True)
        self._markers = re.compile("|".join(re.escape(marker) for marker in markers))

    def messages(
        self, question: VideoQuestion, *, media: Sequence[MediaRef] | None = None
    ) -> list[dict[str, Any]]:
        """The chat: one user turn, its media in order, then the template's prompt.

        Templates that state duration and frame count (grounding) load the first video for it.
        """
        refs = question.media if media is None else media
        parts: list[dict[str, Any]] = [{"type": ref.kind} for ref in refs]
        text = {"type": "text", "text": self.plain(self._prompt_text(question, refs))}
        return [{"role": "user", "content": [*parts, text]}]

    def plain(self, text: str) -> str:
        """`text` with special tokens spelled apart: data cannot end a turn or add a video."""
        return self._markers.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)

    def text(
        self, question: VideoQuestion, *, media: Sequence[MediaRef] | None = None
    ) -> PromptText:
        """The prompt's tokens, generation prompt included, before its media are looked at."""
        refs = tuple(question.media if media is None else media)
        chat = self.processor.apply_chat_template(
            self.messages(question, media=refs), tokenize=False, add_generation_prompt=True
        )
        ids = np.array(self.tokenizer(chat, add_special_tokens=False)["input_ids"])
        found = int(np.isin(ids, list(self._media_ids.values())).sum())
        if found != len(refs):
            raise ValueError(
                f"the chat template made {found} media placeholders of the {len(refs)} files of"
                f" question {question.question_id}: it must write one for each"
            )
        return PromptText(ids, refs)

    def prompt(
        self, question: VideoQuestion, *, media: Sequence[MediaRef] | None = None
    ) -> dict[str, Tensor]:
        """What the model is given for one question, generation prompt included, without padding.

        `input_ids`, `attention_mask`, `mm_token_type_ids` long [1, P]; `pixel_values_videos`,
        `video_grid_thw` and `pixel_values`, `image_grid_thw` where there are such media; for
        Qwen2.5-VL `second_per_grid_ts` and `position_ids` long [3, 1, P] (see `train.positions`).
        `media` shows other files than the question's own. Raises MediaError that names the file.
        """
        return self.prompts([self.text(question, media=media)])[0]

    def prompts(self, texts: Sequence[PromptText]) -> list[dict[str, Tensor]]:
        """As `prompt` for several, with few calls of the processor."""
        visions = iter(self._media.prepare([ref for text in texts for ref in text.media]))
        return [self._assembled(text, [next(visions) for _ in text.media]) for text in texts]

    def cell_seconds(
        self, question: VideoQuestion, *, media: Sequence[MediaRef] | None = None
    ) -> list[float]:
        """When each temporal cell begins, in seconds on its file's clock; videos one after another.

        These are the frames of APPO, in the order of `train.prompt_tensors.frames_of_prompt`.
        """
        refs = question.media if media is None else media
        return [
            seconds
            for ref in refs
            if ref.kind == "video"
            for seconds in self.loader.load(ref).times_seconds[:: self._media.frames_per_cell]
        ]

    def most_vision_tokens(self, ref: MediaRef) -> int:
        """The most tokens that a file of this kind can become, without looking at it."""
        return self._media.most_tokens(ref)

    def _prompt_text(self, question: VideoQuestion, refs: Sequence[MediaRef]) -> str:
        if not any(segment.tag == "time" for segment in self.template.segments):
            return task_prompt(question, self.template.name).text
        main = next((ref for ref in refs if ref.kind == "video"), None)
        if main is None:
            raise ValueError(
                f"the {self.template.name!r} template asks for times, but question"
                f" {question.question_id} has no video"
            )
        clip = self.loader.load(main)
        return task_prompt(
            question,
            self.template.name,
            duration_seconds=clip.duration_seconds,
            num_frames=len(clip),
        ).text

    def _assembled(self, text: PromptText, visions: Sequence[Vision]) -> dict[str, Tensor]:
        places = np.flatnonzero(np.isin(text.ids, list(self._media_ids.values())))
        pieces, done = [], 0
        for place, vision in zip(places.tolist(), visions, strict=True):
            pieces += [text.ids[done:place], vision.token_ids]
            done = place + 1
        ids = torch.from_numpy(np.concatenate([*pieces, text.ids[done:]]))
        kinds = torch.zeros_like(ids)
        kinds[ids == self._media_ids["image"]] = 1
        kinds[ids == self._media_ids["video"]] = 2
        inputs = {
            "input_ids": ids[None],
            "attention_mask": torch.ones_like(ids)[None],
            "mm_token_type_ids": kinds[None],
        }
        for kind, pixels, grid in (
            ("video", "pixel_values_videos", "video_grid_thw"),
            ("image", "pixel_values", "image_grid_thw"),
        ):
            of_kind = [vision for vision in visions if vision.kind == kind]
            if of_kind:
                inputs[pixels] = torch.cat([vision.pixels for vision in of_kind])
                inputs[grid] = torch.stack([vision.grid for vision in of_kind])
        if self._family == "qwen2.5-vl":
            self._add_times(inputs, [v.seconds_per_cell for v in visions if v.kind == "video"])
        return inputs

    def _add_times(self, inputs: dict[str, Tensor], seconds: Sequence[float]) -> None:
        if seconds:
            inputs["second_per_grid_ts"] = torch.tensor(seconds)
        positions = qwen2_5_positions(
            inputs["mm_token_type_ids"][0],
            image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"),
            seconds_per_cell=seconds,
            tokens_per_second=self._tokens_per_second,
            merge_size=self._media.merge_size,
        )
        inputs["position_ids"] = positions[:, None]


def pad_prompts(
    prompts: Sequence[Mapping[str, Tensor]], *, pad_token_id: int, side: str
) -> dict[str, Tensor]:
    """One batch [B, P] of prompts as `VideoInputs.prompt` gives them; media in the prompts' order.

    `side` is "left" (for generation) or "right". Padding has attention 0, kind 0 and position 0.
    """
    if side not in ("left", "right"):
        raise ValueError(f"prompts are padded on the left or on the right, not {side!r}")
    width = max(prompt["input_ids"].shape[1] for prompt in prompts)

    def padded(name: str, value: int) -> Tensor:
        rows = []
        for prompt in prompts:
            space = width - prompt["input_ids"].shape[1]
            edges = (space, 0) if side == "left" else (0, space)
            rows.append(torch.nn.functional.pad(prompt[name], edges, value=value))
        return torch.cat(rows, dim=-2)

    batch = {"input_ids": padded("input_ids", pad_token_id)}
    for name in ("attention_mask", "mm_token_type_ids", "position_ids"):
        if name in prompts[0]:
            batch[name] = padded(name, 0)
    for name in _MEDIA_TENSORS:
        parts = [prompt[name] for prompt in prompts if name in prompt]
        if parts:
            batch[name] = torch.cat(parts)
    return batch


_MEDIA_TENSORS = (
    "pixel_values_videos",
    "video_grid_thw",
    "second_per_grid_ts",
    "pixel_values",
    "image_grid_thw",
)
