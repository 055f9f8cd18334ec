"""The start of RL that ships with the sandbox: its folder, how it is packed, and its hash.

A model of 1 M parameters in `sandbox/models/start`, taught by `python -m sandbox.start_model` with
planted faults, so that RL can be shown within a minute. `recipe.json` beside the weights says how
it came about and holds their SHA-256.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from cli.config import UsageError

SHIPPED_START = Path(__file__).resolve().parent / "start"
WEIGHTS, RECIPE = "model.safetensors", "recipe.json"
FILES = (
    *(WEIGHTS, "config.json", "generation_config.json"),
    *("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    RECIPE,
)


def pack(model: Path, folder: Path, recipe: Mapping[str, Any]) -> str:
    """Save `model` into `folder` for shipping, with `recipe` beside it. Returns the weights' hash.

    Weights are rounded to bfloat16, which halves the file; the configuration says float32, so that
    all commands compute in float32.
    """
    import torch

    from train.modeling.loading import load_policy, load_processor

    folder.mkdir(parents=True, exist_ok=True)
    load_policy(model, dtype="float32", device="cpu").to(torch.bfloat16).save_pretrained(folder)
    load_processor(model).save_pretrained(folder)
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        if "dtype" in part:
            part["dtype"] = "float32"
    file.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    digest = sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    text = json.dumps({**recipe, "sha256": digest}, indent=2)
    (folder / RECIPE).write_text(text + "\n", "utf-8")
    return digest


def shipped_start() -> Path:
    """The folder of the shipped model. Raises UsageError where its weights are not those packed."""
    missing = [name for name in FILES if not (SHIPPED_START / name).is_file()]
    if missing:
        raise UsageError(
            f"the model that ships with the sandbox, {SHIPPED_START}, lacks {', '.join(missing)};"
            " install the project again"
        )
    recipe = json.loads((SHIPPED_START / RECIPE).read_text("utf-8"))
    found = sha256((SHIPPED_START / WEIGHTS).read_bytes()).hexdigest()
    if found != recipe["sha256"]:
        raise UsageError(
            f"{SHIPPED_START / WEIGHTS} was changed: its SHA-256 is {found}, that of its recipe"
            f" {recipe['sha256']}; install the project again, or make it anew with"
            " python -m sandbox.start_model"
        )
    return SHIPPED_START
