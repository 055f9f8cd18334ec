"""Where decoded frames cannot be kept, a command says so before it begins."""

from pathlib import Path

import pytest

from cli.config import UsageError
from cli.option_groups import FrameOptions
from train.data.frame_loader import FrameLoader


def test_a_home_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.write_text("a file, so that nothing can be made under it")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    options = FrameOptions.model_validate({})
    with pytest.raises(
        UsageError, match=rf"frames cannot be kept in {home}.* \(Not a directory\); give --frame-c"
    ):
        FrameLoader.from_options(options, tmp_path, workers=1)
    elsewhere = FrameOptions.model_validate({"frame_cache": tmp_path / "cache"})
    with FrameLoader.from_options(elsewhere, tmp_path, workers=1):
        assert (tmp_path / "cache").is_dir()
