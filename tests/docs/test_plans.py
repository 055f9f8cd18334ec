"""The plans that pages show are those of the commands above them.

`python tests/docs/test_plans.py` writes them anew.
"""

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from train.plan import main

pytestmark = pytest.mark.heavy  # TRL's own options are loaded with TRL

REPOSITORY = Path(__file__).parents[2]
PAGES = ("many_gpus.md", "recipes.md")
_BLOCK = re.compile(r"(```text\n\$ python -m (train\.plan [^\n]*)\n)(.*?)(```)", re.DOTALL)
CONFIGURATIONS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2.5-vl-3b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl-7b",
    "Qwen/Qwen2.5-VL-32B-Instruct": "qwen2.5-vl-32b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3-vl-8b",
}


def printed(command: str) -> str:
    """What a shown command prints, with the released configurations in place of the hub."""
    folders = {
        name: str(REPOSITORY / "tests" / "reference" / "configurations" / folder)
        for name, folder in CONFIGURATIONS.items()
    }
    words = [folders.get(word, word) for word in shlex.split(command)[1:]]
    words = [
        str(REPOSITORY / word) if word.startswith("train/recipes/") else word for word in words
    ]
    shown = StringIO()
    with redirect_stdout(shown):
        assert main(words) == 0
    text = shown.getvalue()
    for name, folder in folders.items():
        text = text.replace(folder, name)
    return text


def rewritten(text: str) -> str:
    """A page with every plan as its command prints it now."""
    return _BLOCK.sub(lambda found: found.group(1) + printed(found.group(2)) + found.group(4), text)


@pytest.mark.parametrize("name", [PAGES[0], pytest.param(PAGES[1], marks=pytest.mark.slow)])
def test_every_plan_is_what_its_command_prints(name: str) -> None:
    text = (REPOSITORY / "docs" / "guides" / name).read_text("utf-8")
    assert len(_BLOCK.findall(text)) >= 2
    assert rewritten(text) == text, "python tests/docs/test_plans.py writes them anew"


def test_every_recipe_has_its_plan(repository: Path) -> None:
    from train.recipes import RECIPES

    text = (repository / "docs" / "guides" / "recipes.md").read_text("utf-8")
    for recipe in RECIPES:
        nodes = max(1, recipe.gpus // 8)
        assert (
            f"$ python -m train.plan --config train/recipes/{recipe.file} --model {recipe.model}"
            f" --gpus {recipe.gpus // nodes}{f' --nodes {nodes}' * (nodes > 1)}"
        ) in text
        assert f"--config_file train/recipes/{recipe.launch} " in text


if __name__ == "__main__":
    for page in PAGES:
        path = REPOSITORY / "docs" / "guides" / page
        path.write_text(rewritten(path.read_text("utf-8")), "utf-8")
