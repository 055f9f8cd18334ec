"""Recipes: settings of whole runs, and how their processes are started.

`FOLDER / RECIPE.file` is for --config of `train.rl`, `FOLDER / RECIPE.launch` for --config_file of
`accelerate launch`. `videop2r.yaml` and `appo.yaml` are the papers' own settings; those below are
for a number of GPUs of 80 GB, and `docs/guides/recipes.md` shows what each GPU holds.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
PAPERS = ("videop2r.yaml", "appo.yaml")
ZERO_3 = "accelerate/zero3_8gpu.yaml"
"""Starts the recipes of 8 GPUs by DeepSpeed instead of FSDP2; the number of GPUs is an option of
`accelerate launch`, too."""


@dataclass(frozen=True)
class Recipe:
    """A run of `train.rl` for a model and a number of GPUs."""

    file: str
    model: str
    """The hub's name of the size it is for."""
    gpus: int
    """Of all nodes."""
    launch: str


_3B, _7B = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
_8B = "Qwen/Qwen3-VL-8B-Instruct"
_ONE, _TWO = "accelerate/single_gpu.yaml", "accelerate/fsdp2_2gpu.yaml"
_FOUR, _EIGHT = "accelerate/fsdp2_4gpu.yaml", "accelerate/fsdp2_8gpu.yaml"
_SIXTEEN = "accelerate/fsdp2_16gpu.yaml"

RECIPES = (
    Recipe("3b_1gpu.yaml", _3B, 1, _ONE),
    Recipe("3b_2gpu.yaml", _3B, 2, _TWO),
    Recipe("3b_8gpu.yaml", _3B, 8, _EIGHT),
    Recipe("7b_4gpu.yaml", _7B, 4, _FOUR),
    Recipe("7b_8gpu.yaml", _7B, 8, _EIGHT),
    Recipe("7b_16gpu.yaml", _7B, 16, _SIXTEEN),
    Recipe("8b_4gpu.yaml", _8B, 4, _FOUR),
    Recipe("8b_8gpu.yaml", _8B, 8, _EIGHT),
    Recipe("8b_16gpu.yaml", _8B, 16, _SIXTEEN),
)
