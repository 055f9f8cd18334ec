"""Every command with things that are missing or broken: extras, trackers, network, servers, keys,
models, ledgers. Never a traceback, always one sentence and the status that the pages promise.
"""

import shlex
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from helpers.hard_places import (
    cells,
    environment,
    own_inputs,
    prepared,
    run,
    without_packages,
    words_of,
)
from servers.model_server import TEST_KEY, running_server

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(600)]

DEAD = "http://127.0.0.1:9"  # the discard port: nobody listens
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1234\n"
CLAUDE = "claude:claude-haiku-5-5"
TAKES_A_MODEL = [
    "train.sft",
    "train.rl",
    "train.evaluate model",
    "sandbox.crucial_frames",
    "sandbox.warm_up",
]

MISSING = [
    ("train.sft", ("torch", "transformers", "trl", "accelerate", "peft"), "train"),
    ("train.rl", ("torch", "transformers", "trl", "accelerate", "peft"), "train"),
    ("train.evaluate model", ("torch", "transformers", "accelerate"), "train"),
    ("train.sft", ("trl",), "train"),
    ("train.rl", ("trl",), "train"),
    ("sandbox.tiny_model", ("torch", "transformers"), "local"),
    ("sandbox.warm_up", ("torch", "transformers"), "local"),
    ("sandbox.crucial_frames", ("torch", "transformers"), "train"),
    ("sandbox.llama_judge", ("torch", "transformers"), "local"),
    ("judges.audit report", ("scipy",), "audit"),
    ("judges.audit gate", ("scipy",), "audit"),
]


@pytest.mark.parametrize(("command", "packages", "extra"), MISSING)
def test_a_missing_package_names_its_extra(
    command: str, packages: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = words_of(command, out, own_inputs(tmp_path))
    done = run(words, tmp_path, env=without_packages(tmp_path / "hook", *packages))
    done.check(2)
    extras = {extra, "train"} if extra == "local" else {extra}
    assert any(f"videop2r-toolkit[{one}]" in done.err for one in extras), done.err[-600:]
    assert not out.exists(), "a run that could not begin has claimed its folder"


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        (CLAUDE, "anthropic", "claude"),
        ("openai:m@http://localhost:9/v1", "openai", "openai"),
        ("local:/no/model", "torch", "local"),
    ],
)
@pytest.mark.parametrize("command", ["pipeline.build_cot", "judges.audit run"])
def test_a_missing_backend_names_its_extra(
    command: str, spec: str, package: str, extra: str, tmp_path: Path
) -> None:
    words = words_of(command, tmp_path / "out", own_inputs(tmp_path))
    words[words.index("--judge") + 1] = spec
    env = without_packages(tmp_path / "hook", package) | {"ANTHROPIC_API_KEY": TEST_KEY}
    done = run(words, tmp_path, env=env)
    done.check(2)
    assert f"videop2r-toolkit[{extra}]" in done.err


def test_the_page_without_its_package_names_the_extra(tmp_path: Path) -> None:
    words = ["judges.audit", "label", str(own_inputs(tmp_path) / "audit")]
    words += ["--media-root", str(prepared() / "world"), "--port", "0"]
    done = run(words, tmp_path, env=without_packages(tmp_path / "hook", "gradio"))
    done.check(2)
    assert "videop2r-toolkit[ui]" in done.err


@pytest.mark.parametrize(
    ("command", "tracker"), cells(["train.sft", "train.rl"], ["wandb", "mlflow", "no-such-tracker"])
)
def test_a_missing_tracker_is_wrong_usage_and_claims_no_folder(
    command: str, tracker: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [*words_of(command, out, own_inputs(tmp_path)), "--report-to", tracker]
    done = run(words, tmp_path)  # neither of the two belongs to the extras
    done.check(2)
    assert tracker in done.err
    assert not out.exists()


@pytest.mark.parametrize("command", TAKES_A_MODEL)
def test_a_model_of_the_hub_without_network_is_one_sentence(command: str, tmp_path: Path) -> None:
    words = words_of(command, tmp_path / "out", own_inputs(tmp_path))
    words[words.index("--model") + 1] = "somebody/no-such-model"
    offline = environment(HF_ENDPOINT=DEAD, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path / "hf"))
    done = run(words, tmp_path, env=offline)
    done.check(2)
    assert "somebody/no-such-model" in done.err


def _asking(command: str, tmp_path: Path) -> list[str]:
    """A command that asks Claude."""
    inputs = own_inputs(tmp_path)
    words = words_of(command, tmp_path / "out", inputs)
    if command == "pipeline.build_cot":
        words[words.index("--generator") + 1] = CLAUDE
    if command == "train.rl":
        words[words.index("--algo") + 1] = "pa-grpo"
        return [*words, "--judge", CLAUDE]
    if command == "train.evaluate model":
        return [*words, "--extractor", CLAUDE]
    words[words.index("--judge") + 1] = CLAUDE
    return words


ASKING = ["pipeline.build_cot", "judges.audit run", "train.rl", "train.evaluate model"]


@pytest.mark.parametrize("command", ASKING)
def test_a_dead_server_stops_a_command_with_a_sentence(command: str, tmp_path: Path) -> None:
    env = environment(ANTHROPIC_BASE_URL=DEAD, ANTHROPIC_API_KEY=TEST_KEY)
    done = run(_asking(command, tmp_path), tmp_path, env=env)
    done.check(2, 3)
    assert DEAD in done.err


@pytest.mark.parametrize("command", ASKING)
def test_a_revoked_key_stops_a_command_with_a_sentence(command: str, tmp_path: Path) -> None:
    with running_server(api_key="sk-test-another-key-0123456789") as server:
        env = environment(ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY=TEST_KEY)
        done = run(_asking(command, tmp_path), tmp_path, env=env)
    done.check(2, 3)
    assert "401" in done.err
    assert TEST_KEY not in done.out + done.err


@pytest.mark.parametrize("command", ASKING)
def test_no_key_is_wrong_usage(command: str, tmp_path: Path) -> None:
    done = run(_asking(command, tmp_path), tmp_path)
    done.check(2)
    assert "ANTHROPIC_API_KEY" in done.err
    assert not (tmp_path / "out").exists()


DAMAGED = [
    ("pipeline.build_cot", "out/cot.duckdb"),
    ("pipeline.build_cot", "out/config.json"),
    ("pipeline.status", "out/progress.json"),
    ("judges.audit sample", "inputs/build/cot.duckdb"),
    ("judges.audit run", "inputs/audit/audit.duckdb"),
    ("judges.audit report", "inputs/audit/audit.duckdb"),
    ("judges.audit label", "inputs/audit/audit.duckdb"),
    ("judges.audit gate", "inputs/audit/audit.duckdb"),
    ("sandbox.truth_labels", "inputs/audit/audit.duckdb"),
    ("sandbox.truth_labels", "inputs/world/world.json"),
    ("sandbox.observations", "inputs/predictions.jsonl"),
    ("train.evaluate", "inputs/predictions.jsonl"),
    ("train.sft", "inputs/build/dataset/train-00000-of-00001.parquet"),
    ("train.rl", "inputs/world/questions.json"),
    ("sandbox.scripted_dataset", "inputs/world/questions.json"),
    ("sandbox.scripted_dataset", "inputs/world/world.json"),
    ("pipeline.build_cot", "inputs/world/world.json"),
]
GARBAGE = [b"\x00\xff garbage \x1b[31m", b'{"a": 1}']


def _damaged(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    match how:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:2000])
        case "pointer":
            weights.write_text(LFS_POINTER, "utf-8")
        case "no weights":
            weights.unlink()
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "no folder":
            rmtree(folder)
        case _:
            (folder / "config.json").write_text("{", "utf-8")


@pytest.mark.parametrize(
    ("command", "how"),
    cells(
        TAKES_A_MODEL,
        ["cut", "pointer", "no weights", "no tokenizer", "no folder", "broken config"],
        every=3,
    ),
)
def test_a_damaged_model_is_refused_by_name(command: str, how: str, tmp_path: Path) -> None:
    inputs = own_inputs(tmp_path)
    words = words_of(command, tmp_path / "out", inputs)
    place = words.index("--model") + 1
    model = tmp_path / "damaged"
    copytree(Path(words[place]).resolve(), model)
    words[place] = str(model)
    _damaged(model, how)
    done = run(words, tmp_path)
    done.check(2)
    assert "damaged" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "file", "content"), cells(DAMAGED, GARBAGE))
def test_a_damaged_input_is_refused_in_a_sentence(
    command: str, file: str, content: bytes, tmp_path: Path
) -> None:
    inputs = own_inputs(tmp_path)
    for name in ("build", "world", "predictions.jsonl"):
        source = (inputs / name).resolve()
        (inputs / name).unlink()
        if source.is_dir():
            copytree(source, inputs / name)
        else:
            (inputs / name).write_bytes(source.read_bytes())
    out = tmp_path / "out"
    if file.startswith("out/"):
        copytree(prepared() / "build", out)
    words = words_of(command, out, inputs)
    if command == "pipeline.status":
        words = [*shlex.split(command), str(out)]
    (tmp_path / file).write_bytes(content)
    done = run(words, tmp_path)
    done.check(*((1, 2) if file.endswith("questions.json") else (2,)))
    assert "\x1b" not in done.err
