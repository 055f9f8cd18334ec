"""The model that ships with the sandbox: it is the one of its recipe, and loads as any other."""

import json
import re
import shutil
from pathlib import Path

import pytest

from cli.config import UsageError
from sandbox.models import shipped_start as shipping
from sandbox.models.shipped_start import RECIPE, SHIPPED_START, WEIGHTS, pack, shipped_start


def test_the_shipped_weights_are_those_of_the_recipe() -> None:
    recipe = json.loads((SHIPPED_START / RECIPE).read_text())
    assert shipped_start() == SHIPPED_START
    assert recipe["command"].startswith("python -m sandbox.start_model --seed ")
    assert (SHIPPED_START / WEIGHTS).stat().st_size < 3_000_000


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [(RECIPE, "lacks recipe.json; install"), (WEIGHTS, "was changed: its SHA-256 is")],
)
def test_a_changed_or_missing_file_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, sentence: str
) -> None:
    folder = tmp_path / "start"
    shutil.copytree(SHIPPED_START, folder)
    monkeypatch.setattr(shipping, "SHIPPED_START", folder)
    if broken == RECIPE:
        (folder / RECIPE).unlink()
    else:
        with (folder / WEIGHTS).open("ab") as file:
            file.write(b"\0")
    with pytest.raises(UsageError, match=re.escape(sentence)):
        shipped_start()


@pytest.mark.heavy
def test_a_packed_model_has_half_the_bytes_and_computes_in_float32(tmp_path: Path) -> None:
    """Rounded once: packing what was packed changes no weight."""
    import torch

    from train.modeling.loading import load_policy

    digest = pack(SHIPPED_START, tmp_path / "again", {"command": "none"})
    first, again = load_policy(SHIPPED_START), load_policy(tmp_path / "again")
    assert {each.dtype for each in first.parameters()} == {torch.float32}
    assert digest == json.loads((SHIPPED_START / RECIPE).read_text())["sha256"]
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    count = sum(each.numel() for each in first.parameters())
    assert (SHIPPED_START / WEIGHTS).stat().st_size < 2.1 * count
