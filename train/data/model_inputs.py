"""From questions and files to model inputs: the one place that decides pixels and tokens.

Fine-tuning, sampling and evaluation all use it, so a clip has the same pixels, tokens, times and
positions in each. The model's own processor makes pixels and media tokens
(`train.data.media_processor`); the text is the template's prompt in the model's chat template.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from schemas.prompting import spelled_apart, task_prompt, turn_markers
from schemas.questions import MediaRef, VideoQuestion
from schemas.traces import TraceTemplate
from train.data.frame_loader import FrameLoader
from train.data.media_processor import MediaProcessor, Vision
from train.modeling.loading import config_of, processor_family
from train.modeling.prompt_tensors import MEDIA, joined_media


@dataclass(frozen=True)
class PromptText:
    """A prompt as token ids, in which one placeholder id stands for each medium, in order."""

    ids: "np.ndarray[Any, Any]"
    media: tuple[MediaRef, ...]


class VideoInputs:
    """Model inputs for questions of one dataset, by one model's processor and one template.

    `rope_positions` as the option of this name (`cli.option_groups.RopePositionOptions`).
    """

    def __init__(
        self,
        processor: Any,
        loader: FrameLoader,
        template: TraceTemplate,
        *,
        rope_positions: Literal["released", "apart"] = "released",
    ) -> None:
        self.processor = processor
        self.loader = loader
        self.template = template
        self.tokenizer = processor.tokenizer
        self._family = processor_family(processor)
        self.media_processor = MediaProcessor(processor, loader)
        self._time_inputs = self._family.time_inputs
        if rope_positions == "apart" and self._family.time_inputs_apart is not None:
            self._time_inputs = self._family.time_inputs_apart
        self._media_ids = {
            "image": int(processor.image_token_id),
            "video": int(processor.video_token_id),
        }
        self._markers = turn_markers(self.tokenizer)

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
        return spelled_apart(text, self._markers)

    def text(
        self, question: VideoQuestion, *, media: Sequence[MediaRef] | None = None
    ) -> PromptText:
        """The prompt's tokens, generation prompt included, before its media are decoded."""
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
        """The model's inputs for one question, generation prompt included, without padding.

        `input_ids`, `attention_mask`, `mm_token_type_ids` long [1, P]; `pixel_values_videos`,
        `video_grid_thw` and `pixel_values`, `image_grid_thw` where there are such media; and what
        the family adds (`ModelFamily.time_inputs`: for Qwen2.5-VL `second_per_grid_ts` and
        `position_ids` long [3, 1, P]). `media` replaces the question's own files. Raises MediaError
        that names the file.
        """
        return self.prompts([self.text(question, media=media)])[0]

    def prompts(self, texts: Sequence[PromptText]) -> list[dict[str, Tensor]]:
        """As `prompt` for several, with few calls of the processor."""
        visions = iter(self.media_processor.prepare([ref for text in texts for ref in text.media]))
        return [self._assembled(text, [next(visions) for _ in text.media]) for text in texts]

    def cell_seconds(
        self, question: VideoQuestion, *, media: Sequence[MediaRef] | None = None
    ) -> list[float]:
        """When each temporal cell begins, in seconds on its file's clock; videos one after another.

        These are the frames of APPO, in the order of
        `train.modeling.prompt_tensors.frames_of_prompt`.
        """
        refs = question.media if media is None else media
        return [
            seconds
            for ref in refs
            if ref.kind == "video"
            for seconds in self.loader.load(ref).times_seconds[
                :: self.media_processor.frames_per_cell
            ]
        ]

    def most_vision_tokens(self, ref: MediaRef) -> int:
        """The most tokens that a file of this kind can have, from the frame settings alone."""
        return self.media_processor.most_tokens(ref)

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
        for kind, names in MEDIA.items():
            of_kind = [vision for vision in visions if vision.kind == kind]
            if of_kind:
                inputs[names.pixels] = torch.cat([vision.pixels for vision in of_kind])
                inputs[names.grid] = torch.stack([vision.grid for vision in of_kind])
        if self._time_inputs is not None:
            seconds = [vision.seconds_per_cell for vision in visions if vision.kind == "video"]
            config = config_of(self.processor)
            inputs |= self._time_inputs(inputs, seconds, self.media_processor.merge_size, config)
        return inputs


def pad_prompts(
    prompts: Sequence[Mapping[str, Tensor]], *, pad_token_id: int, side: str
) -> dict[str, Tensor]:
    """One batch [B, P] of prompts from `VideoInputs.prompt`; media in the prompts' order.

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
    return batch | joined_media(prompts)
