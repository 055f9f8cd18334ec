"""Model cards: the README.md beside weights that a training command saved.

    card = ModelCard(command="train.sft", method="supervised fine-tuning", ...)
    card.write(folder)

A card states what the model was made of and how to load it; tests execute its loading code. Names
from outside are escaped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.markdown_page import front_matter, render_markdown
from media.sampling import FrameSpec
from schemas.prompting import save_prompt_files
from schemas.serialization import write_text
from schemas.traces import TEMPLATES
from train.modeling.families import ModelFamily

CARD_FILE = "README.md"
_TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
_LICENCE_KEYS = ("license", "license_name", "license_link")
_UNKNOWN_LICENCE = {"license": "other", "license_name": "to-fill-in", "license_link": "to-fill-in"}


@dataclass(frozen=True)
class Paper:
    """A paper to cite."""

    key: str
    title: str
    authors: str
    year: int
    arxiv: str


VIDEO_P2R = Paper(
    "videop2r",
    "VideoP2R: Video Understanding from Perception to Reasoning",
    "Yifan Jiang and Yueying Wang and Rui Zhao and Toufiq Parag and Zhimin Chen and Zhenyu Liao and"
    " Jayakrishnan Unnikrishnan",
    2025,
    "2511.11113",
)
APPO = Paper(
    "appo",
    "APPO: Attention-guided Perception Policy Optimization for Video Reasoning",
    "Henghui Du and Chang Zhou and Xi Chen and Di Hu",
    2026,
    "2602.23823",
)
GRPO = Paper(
    "grpo",
    "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    "Zhihong Shao and others",
    2024,
    "2402.03300",
)
DAPO = Paper(
    "dapo",
    "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    "Qiying Yu and others",
    2025,
    "2503.14476",
)
DR_GRPO = Paper(
    "drgrpo",
    "Understanding R1-Zero-Like Training: A Critical Perspective",
    "Zichen Liu and others",
    2025,
    "2503.20783",
)


@dataclass(frozen=True)
class ModelCard:
    """All that a card states about a training run."""

    command: str
    """The module of the training command."""
    method: str
    """How the base model was trained, in a few words."""
    base_model: str
    """Folder or hub id."""
    family: ModelFamily
    facts: Mapping[str, str]
    """Further rows of the table: data and their ids, and what else the command used."""
    template: str
    prompt_id: str
    frames: FrameSpec
    options: Mapping[str, Any]
    """Options that differ from the defaults."""
    run: Mapping[str, Any]
    """`schemas.runs.RunInfo.as_json()`."""
    papers: tuple[Paper, ...]
    max_new_tokens: int = 1024

    def write(self, folder: Path) -> None:
        """Write the card and the prompt files beside the weights in `folder`."""
        save_prompt_files(folder, self.template)
        write_text(folder / CARD_FILE, self._text(folder))

    def _text(self, folder: Path) -> str:
        is_adapter = _is_adapter(folder)
        dirty = " with uncommitted changes" if self.run["dirty"] else ""
        rate, _, _ = self.frames.policy.removeprefix("fps:").partition(",")
        values = {
            "card": self,
            "folder": folder,
            "is_adapter": is_adapter,
            "front_matter": front_matter(self._front_matter(is_adapter)),
            "commit": f"{self.run['commit'] or 'installed package'}{dirty}",
            "frames_per_second": rate if self.frames.policy.startswith("fps:") else None,
            "states_duration": any(
                segment.tag == "time" for segment in TEMPLATES[self.template].segments
            ),
            "papers": self.papers,
        }
        return render_markdown(_TEMPLATE, values, {"python": repr})

    def _front_matter(self, is_adapter: bool) -> dict[str, Any]:
        """What the Hub reads; a licence that is not known stays to be filled in."""
        fields: dict[str, Any] = (
            {} if Path(self.base_model).exists() else {"base_model": self.base_model}
        )
        return fields | {
            "library_name": "peft" if is_adapter else "transformers",
            "pipeline_tag": "video-text-to-text",
            "tags": ["video", "chain-of-thought", self.command],
            **licence_of(self.base_model),
        }


def licence_of(model: str | Path) -> dict[str, str]:
    """The licence fields of a model's own card or config.json, "other" where they are not there.

    `model` is a folder, or a hub id that was downloaded before; nothing is downloaded here.
    """
    texts = {name: _text_of(model, name) for name in (CARD_FILE, "config.json")}
    found = {**_json_fields(texts["config.json"]), **_front_matter_of(texts[CARD_FILE])}
    known = {key: found[key] for key in _LICENCE_KEYS if isinstance(found.get(key), str)}
    return known if "license" in known else dict(_UNKNOWN_LICENCE)


def _text_of(model: str | Path, name: str) -> str:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    file: Any = Path(model) / name
    if not Path(model).is_dir():
        try:
            file = try_to_load_from_cache(str(model), name)
        except HFValidationError:
            return ""
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return ""
    return Path(file).read_text(encoding="utf-8", errors="replace")


def _json_fields(text: str) -> Mapping[str, Any]:
    fields = json.loads(text) if text else {}
    return fields if isinstance(fields, dict) else {}


def _front_matter_of(text: str) -> Mapping[str, Any]:
    import yaml

    if not text.startswith("---\n"):
        return {}
    try:
        fields = yaml.safe_load(text.split("---\n", 2)[1])
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
