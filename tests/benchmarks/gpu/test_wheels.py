"""What is carried to a GPU machine is all that it lacks, and light."""

from pathlib import Path

import pytest

from benchmarks.gpu.wheels import CARRIED, IMAGE, LARGEST_MB, main, too_large, with_requirements


def test_what_is_carried_requires_nothing_that_is_neither_carried_nor_in_the_image() -> None:
    image = with_requirements(IMAGE)
    assert {"numpy", "tokenizers", "psutil"} <= image  # requirements of requirements
    assert not with_requirements(CARRIED) - image - set(CARRIED)
    assert not {"duckdb", "decord", "av"} & (image | set(CARRIED))


def wheel(path: Path, megabytes: float) -> None:
    with path.open("wb") as file:
        file.truncate(int(megabytes * 1e6))


def test_wheels_of_40_megabytes_are_too_large(tmp_path: Path) -> None:
    wheel(tmp_path / "small-1-py3-none-any.whl", 9)
    wheel(tmp_path / "large-1-py3-none-any.whl", LARGEST_MB - 10)
    assert not too_large(tmp_path)
    wheel(tmp_path / "third-1-py3-none-any.whl", 2)
    assert "41 MB together" in too_large(tmp_path)
    assert too_large(tmp_path).endswith("the largest is large-1-py3-none-any.whl")


def test_wheels_are_not_added_to_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel(tmp_path / "trl-1.0-py3-none-any.whl", 1)
    assert main(["--output-dir", str(tmp_path)]) == 2
    assert "has wheels already" in capsys.readouterr().err
