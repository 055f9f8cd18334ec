"""A model named `p2r` for lmms-eval: its tasks are asked with our template, frames and decoding.

    lmms-eval --model p2r --tasks mvbench \\
        --model_args pretrained=out/rl/model,frame_cache=out/frames

The task's question goes into our task prompt, and of the trace that the model writes the task sees
the answer only: `<observation>` and `<think>` are taken off, `<answer>` is opened. What it says of
how to answer ("answer with the letter directly") is left out, because the template says it.
"""

import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from loguru import logger
from p2r_lmms_texts import bare_answer, question_of, whole
from PIL import Image
from tqdm import tqdm

from media.sampling import FrameSpec
from schemas.questions import MediaRef, VideoQuestion
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.evaluation.answering.video_answerer import VideoAnswerer
from train.evaluation.predictions import Prediction
from train.modeling.loading import load_policy, load_processor
from train.rollouts.token_sampling import Sampling

_STILLS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def manifest() -> ModelManifest:
    """What lmms-eval's entry-point group `lmms_eval.models` wants to know."""
    return ModelManifest(model_id="p2r", simple_class_path="p2r_lmms_eval.P2RModel")


class HasArguments(Protocol):
    """A request of lmms-eval: text, generation options, media of a document, and its place."""

    arguments: tuple[Any, ...]


class P2RModel(lmms):
    """A checkpoint of `train.sft` or `train.rl`, or any Qwen2.5-VL or Qwen3-VL.

    `reply` "answer" gives the task the answer alone, "full" the whole trace (then list both tags in
    lmms-eval's --reasoning_tags). A question whose media cannot be read gets an empty answer
    and is counted in a warning.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        template: str = "p2r",
        frames: str = "uniform:32",
        max_pixels: int = 256 * 28 * 28,
        temperature: float = 0.01,
        top_p: float = 0.001,
        max_new_tokens: int = 1024,
        seed: int = 0,
        batch_size: int | str = 1,
        dtype: str = "auto",
        attention: str = "sdpa",
        device: str | None = None,
        reader: str = "decord",
        frame_cache: str | None = None,
        reply: str = "answer",
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown := {name: value for name, value in unknown.items() if value is not None}:
            raise ValueError(f"--model_args of p2r has unknown names: {', '.join(sorted(unknown))}")
        if template not in TEMPLATES or reply not in ("answer", "full"):
            raise ValueError(
                f"template={template} must be one of {', '.join(TEMPLATES)}, reply={reply} must be "
                "answer or full"
            )
        accelerator = Accelerator()
        self._rank, self._world_size = accelerator.local_process_index, accelerator.num_processes
        where = str(accelerator.device) if self._world_size > 1 or device is None else device
        self._batch_size = int(batch_size)
        self._reply = whole if reply == "full" else bare_answer
        self._pictures = tempfile.TemporaryDirectory(prefix="p2r-lmms-eval-")
        self._num_pictures = 0
        # Tasks name files by absolute paths, hub caches are made of links.
        loader = FrameLoader(
            Path("/"),
            # A comma ends an argument of lmms-eval.
            spec=FrameSpec.parse(frames.replace(";", ","), int(max_pixels)),
            cache_dir=Path(frame_cache) if frame_cache else None,
            reader=reader,  # type: ignore[arg-type]
            follow_symlinks=True,
        )
        self._answerer = VideoAnswerer(
            load_policy(pretrained, dtype=dtype, device=where, attention=attention),
            VideoInputs(load_processor(pretrained), loader, TEMPLATES[template]),
            Sampling(int(max_new_tokens), temperature=float(temperature), top_p=float(top_p)),
            seed=int(seed),
            say=logger.warning,
        )

    @property
    def batch_size(self) -> int:
        """Questions answered together."""
        return self._batch_size

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The task's own generation options are not used: all tasks are decoded alike."""
        questions = [self._question(request) for request in requests]
        iterator = iter(questions)
        batches = iter(lambda: tuple(islice(iterator, self._batch_size)), ())
        found: list[Prediction] = []
        with tqdm(total=len(questions), disable=self.rank != 0, desc="p2r") as bar:
            for predictions in self._answerer.answers(batches):
                found += predictions
                bar.update(len(predictions))
        failed = [one for one in found if one.error]
        for one in failed:
            logger.warning(f"{one.video}: {one.error}")
        if failed:
            logger.warning(
                f"{len(failed)} of {len(found)} questions have no answer: they count as wrong"
            )
        return [self._reply(one.output) for one in found]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered: the template is one turn."""
        raise ValueError("the p2r model answers in one turn; this task wants several")

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not offered: a trace has to be written before its answer."""
        raise ValueError("the p2r model writes traces; tasks of type generate_until can use it")

    def _question(self, request: HasArguments) -> VideoQuestion:
        context, _, visuals_of, doc_id, task, split = request.arguments
        visuals = visuals_of(self.task_dict[task][split][doc_id]) or []
        media = [self._medium(visual) for visual in visuals]
        if not media:
            raise ValueError(f"document {doc_id} of {task} has neither video nor image")
        return question_of(context, media, _say_once)

    def _medium(self, visual: Any) -> MediaRef:
        if isinstance(visual, Image.Image):
            self._num_pictures += 1
            path = Path(self._pictures.name) / f"{self._num_pictures}.png"
            visual.convert("RGB").save(path)
            return MediaRef(kind="image", path=str(path).lstrip("/"))
        if not isinstance(visual, str):
            raise ValueError(
                f"a medium is a {type(visual).__name__}; this model takes paths of videos and"
                " pictures"
            )
        kind = "image" if visual.lower().endswith(_STILLS) else "video"
        return MediaRef(kind=kind, path=str(Path(visual).absolute()).lstrip("/"))


@cache
def _say_once(text: str) -> None:
    logger.warning(text)
