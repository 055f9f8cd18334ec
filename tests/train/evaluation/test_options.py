"""Options of `train.evaluate`: former names, saved configurations, the size of the frame cache."""

import json
from pathlib import Path

import pytest
from helpers.evaluations import write_world

from cli.config import UsageError, differing_options, read_config, save_config
from schemas.questions import MediaRef
from train.evaluation.eval_questions import frame_loader
from train.evaluation.options import MAY_CHANGE_ON_RESUME, EvaluateConfig


def config_of(*words: str) -> EvaluateConfig:
    return read_config(EvaluateConfig, words, prog="train.evaluate", description="")


def test_former_names_go_on_working_and_print_the_new_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = ["--observations-from", "a.parquet", "--out", "out"]
    config = config_of(
        *source, "--reader", "openai:m@http://x/v1", "--video-reader", "pyav",
        "--call-timeout-seconds", "7",
    )  # fmt: skip
    assert config.observation_reader == "openai:m@http://x/v1"
    assert (config.video_decoder, config.timeout_seconds) == ("pyav", 7)
    printed = capsys.readouterr().err
    for name in ("--observation-reader", "--video-decoder", "--timeout-seconds"):
        assert name in printed


def test_a_folder_of_the_last_release_is_resumed(tmp_path: Path) -> None:
    words = ["--model", "m", "--questions", "q.json", "--media-root", "clips", "--out", "out"]
    saved = config_of(*words, "--video-decoder", "pyav", "--seed", "3").as_json()
    for new, old in (("observation_reader", "reader"), ("video_decoder", "video_reader")):
        saved[old] = saved.pop(new)
    for name in ("plugin", "requests_per_minute", "tokens_per_minute"):
        del saved[name]
    saved |= {"call_timeout_seconds": saved.pop("timeout_seconds"), "device": "auto"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(saved))
    same = config_of(*words, "--video-decoder", "pyav", "--seed", "3")
    assert differing_options(same, path, MAY_CHANGE_ON_RESUME) == []
    other = config_of(*words, "--seed", "3")
    (difference,) = differing_options(other, path, MAY_CHANGE_ON_RESUME)
    assert difference.startswith("--video-decoder was")
    save_config(other, path)
    assert differing_options(other, path, MAY_CHANGE_ON_RESUME) == []


def cached_bytes(root: Path, cache: Path, gigabytes: str) -> int:
    """The size of the frame cache after four clips."""
    words = ["--predictions", "a.jsonl", "--media-root", str(root), "--frame-cache", str(cache)]
    with frame_loader(config_of(*words, "--frame-cache-gb", gigabytes)) as loader:
        for number in range(4):
            loader.load(MediaRef(kind="video", path=f"clip_{number}.mp4"))
    return sum(path.stat().st_size for path in (cache / "frames").rglob("*") if path.is_file())


def test_the_frame_cache_keeps_to_its_size(tmp_path: Path) -> None:
    write_world(tmp_path / "world")
    whole = cached_bytes(tmp_path / "world", tmp_path / "large", "1")
    assert whole > 4000
    half = cached_bytes(tmp_path / "world", tmp_path / "small", f"{whole / 2e9:.9f}")
    assert 0 < half <= whole / 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rollouts", "vllm"], "give its address by --vllm-url"),
        (["--vllm-url", "http://h:1"], "--vllm-url needs --rollouts vllm"),
        (["--trainer-host", "h"], "--trainer-host needs --rollouts vllm"),
    ],
)
def test_options_of_a_server_belong_together(words: list[str], told: str) -> None:
    source = ["--model", "m", "--questions", "q.json", "--media-root", "clips", "--out", "out"]
    with pytest.raises(UsageError, match=told):
        config_of(*source, *words)


def test_a_server_answers_for_a_model_only() -> None:
    words = ["--predictions", "a.jsonl", "--rollouts", "vllm", "--vllm-url", "http://h:1"]
    with pytest.raises(UsageError, match="--rollouts vllm belongs to --model, but --predictions"):
        config_of(*words)
