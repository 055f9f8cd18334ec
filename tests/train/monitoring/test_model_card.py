"""Model cards: what they state, licences, frame choice of their code, and names from outside."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from media.sampling import FrameSpec, choose_frames
from schemas.runs import start_run
from train.modeling.families import QWEN2_5_VL, QWEN3_VL
from train.monitoring.model_card import (
    APPO,
    GRPO,
    VIDEO_P2R,
    ModelCard,
    licence_of,
)

HOSTILE = (
    "a|b\n| c | d |\n\n# Owned <script>alert(1)</script> `x` ```\n[a](http://e/) "
    "{{ 7 * 7 }} {% raw %} $x$ *y* __z__ <!-- \\| --- ' \" \\"
)
CARD = ModelCard(
    command="train.rl",
    method="pa-grpo+appo",
    base_model="Qwen/Qwen2.5-VL-7B-Instruct",
    family=QWEN2_5_VL,
    facts={"questions": "questions-1", "judge": "claude:claude-haiku-5-5"},
    template="p2r",
    prompt_id="prompt-1",
    frames=FrameSpec("uniform:16"),
    options={"algo": "pa-grpo+appo"},
    run=start_run("train.rl", {}).as_json(),
    papers=(GRPO, VIDEO_P2R, APPO),
)


def text_of(card: ModelCard, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    card.write(folder)
    return (folder / "README.md").read_text("utf-8")


def structure(card: str) -> list[str]:
    """Block and inline element types, plain text left out."""
    body = card.split("---\n", 2)[2]
    kinds = []
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or () if child.type != "text"]
    assert "html_block" not in kinds
    assert "html_inline" not in kinds
    return kinds


def metadata(card: str) -> Any:
    return yaml.safe_load(card.split("---\n", 2)[1])


def test_it_states_what_the_model_was_made_of(tmp_path: Path) -> None:
    text = text_of(CARD, tmp_path / "model")
    for stated in (
        "# model",
        "| base model | Qwen/Qwen2.5-VL-7B-Instruct |",
        "| questions | questions-1 |",
        "| judge | claude:claude-haiku-5-5 |",
        "uniform:16, at most 100,352 pixels each",
        CARD.run["run_id"],
        '"algo": "pa-grpo+appo"',
        "2402.03300",
        "2511.11113",
        "2602.23823",
    ):
        assert stated in text
    assert "2503.14476" not in text
    assert metadata(text)["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (tmp_path / "model" / "prompt.md").is_file()
    compile(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], "card", "exec")


def test_names_from_outside_break_no_table_and_run_nothing(tmp_path: Path) -> None:
    hostile = replace(
        CARD,
        method=HOSTILE,
        base_model=HOSTILE,
        facts={"questions": HOSTILE, HOSTILE: HOSTILE},
        prompt_id=HOSTILE,
        options={HOSTILE: HOSTILE},
        run={**CARD.run, "run_id": HOSTILE, "versions": {HOSTILE: HOSTILE}},
    )
    plain = replace(CARD, facts={"a": "a", "b": "b"}, run={**CARD.run, "versions": {"a": "1"}})
    for is_adapter in (False, True):
        folders = (tmp_path / f"hostile {is_adapter}", tmp_path / f"plain {is_adapter}")
        for folder in folders if is_adapter else ():
            folder.mkdir()
            (folder / "adapter_config.json").write_text("{}")
        evil, kind = (
            text_of(card, folder) for card, folder in zip((hostile, plain), folders, strict=True)
        )
        assert structure(evil) == structure(kind)
        assert metadata(evil)["base_model"] == HOSTILE
        assert metadata(evil)["library_name"] == ("peft" if is_adapter else "transformers")
        code = re.findall(r"```python\n(.*?)\n```", evil, re.DOTALL)[0]
        compile(code, "card", "exec")
        assert (repr(HOSTILE) in code) is is_adapter


@pytest.mark.parametrize("policy", ["uniform:5", "uniform:64", "fps:2,max=64", "fps:3,max=5"])
@pytest.mark.parametrize(("length", "rate"), [(30, 10.0), (1, 25.0), (33, 4.0), (50, 1.0)])
def test_its_code_chooses_the_frames_of_training(
    tmp_path: Path, policy: str, length: int, rate: float
) -> None:
    spec = FrameSpec(policy)
    text = text_of(replace(CARD, frames=spec, family=QWEN3_VL), tmp_path)
    code = text.partition('VideoReader("clip.mp4")\n')[2].partition("frames = torch")[0]

    class Video:
        def __len__(self) -> int:
            return length

        def get_avg_fps(self) -> float:
            return rate

    known: dict[str, Any] = {
        "video": Video(),
        "processor": SimpleNamespace(video_processor=SimpleNamespace(temporal_patch_size=2)),
    }
    exec(code, known)
    expected = choose_frames(spec, [number / rate for number in range(length)])
    assert known["count"] == len(expected)
    assert known["chosen"] == expected + expected[-1:] * (len(expected) % 2)
    assert "counted = len(chosen)" in text


def test_a_licence_is_that_of_the_base_or_left_to_fill_in(tmp_path: Path) -> None:
    unknown = {"license": "other", "license_name": "to-fill-in", "license_link": "to-fill-in"}
    base = tmp_path / "base"
    base.mkdir()
    for absent in (base, tmp_path / "nowhere", "nobody/never-downloaded", HOSTILE):
        assert licence_of(absent) == unknown
    (base / "config.json").write_text(json.dumps({"license": "apache-2.0", "license_link": 7}))
    assert licence_of(base) == {"license": "apache-2.0"}
    (base / "README.md").write_text("---\nlicense: mit\nlicense_name: x\n---\n# Base\n")
    assert licence_of(base) == {"license": "mit", "license_name": "x"}
    (base / "README.md").write_text("---\nlicense: [broken\n---\n")
    assert licence_of(base)["license"] == "apache-2.0"
    assert metadata(text_of(replace(CARD, base_model=str(base)), tmp_path / "out")) == {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "tags": ["video", "chain-of-thought", "train.rl"],
        "license": "apache-2.0",
    }
