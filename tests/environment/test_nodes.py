"""environment/nodes: a server and its learner started by one command, and the compose file.

The schema in `reference/compose-spec.json` is that of github.com/compose-spec/compose-spec at
170098b (23 June 2026, Apache-2.0).
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.served_model import free_port
from helpers.tiny_rl import read_metrics, render_questions, rl_command
from helpers.vllm_servers import ENGINES, need_engines, served_folder

NODES = Path(__file__).resolve().parents[2] / "environment" / "nodes"
# Stands where python does: prints what it was called with, after the answer of a health check.
PRINTS = """#!/usr/bin/env bash
[ "$1" = - ] && exit "${HEALTH:-0}"
printf '%s\\n' "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES" "DEV_MODE=$VLLM_SERVER_DEV_MODE" "$@"
"""


def run(
    *words: str, environment: Mapping[str, str] | None = None, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(NODES / "run.sh"), *words],
        cwd=NODES.parents[1],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


@pytest.fixture
def prints(tmp_path: Path) -> dict[str, str]:
    """An environment in which both pythons only print, and a model that is only a folder."""
    program = tmp_path / "prints"
    program.write_text(PRINTS)
    program.chmod(0o755)
    (tmp_path / "model").mkdir()
    return {"LEARNER_PYTHON": str(program), "SERVER_PYTHON": str(program)}


def folders(tmp_path: Path) -> list[str]:
    return [str(tmp_path / "model"), str(tmp_path / "out")]


def test_a_server_of_two_gpus_is_what_the_page_says(tmp_path: Path, prints: dict[str, str]) -> None:
    given = prints | {"SERVER_GPUS": "6,7", "SERVER_URL": "http://127.0.0.1:8123"}
    lines = run("server", *folders(tmp_path), environment=given).stdout.splitlines()
    assert lines[:2] == ["CUDA_VISIBLE_DEVICES=6,7", "DEV_MODE=1"]
    shown = dict(pairwise(lines))
    assert shown["--model"] == str(tmp_path / "model")
    assert shown["--port"] == "8123"
    assert shown["--tensor-parallel-size"] == "2"
    assert shown["--weight-transfer-config"] == '{"backend": "nccl"}'
    page = (NODES.parents[1] / "docs" / "guides" / "vllm_rollouts.md").read_text("utf-8")
    command = page.split("vllm serve out/sft", 1)[1].split("```")[0]
    assert set(re.findall(r"--[a-z-]+", command)) <= {*shown}
    four = run("server", *folders(tmp_path), environment=prints).stdout.splitlines()
    assert four[0] == "CUDA_VISIBLE_DEVICES=0,1,2,3"


def test_a_learner_of_six_gpus_is_launched_with_the_rest_of_the_words(
    tmp_path: Path, prints: dict[str, str]
) -> None:
    given = prints | {"LEARNER_GPUS": "0,1,2,3,4,5", "SERVER_URL": "http://10.0.0.2:8000"}
    words = ["--algo", "pa-grpo", "--judge-prompt", "with space"]
    done = run("learner", *folders(tmp_path), *words, environment=given)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0] == "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5"
    start = ["-m", "accelerate.commands.launch", "--config_file"]
    assert lines[2:5] == start
    assert (NODES.parents[1] / lines[5]).is_file()
    assert lines[6:10] == ["--num_processes", "6", "-m", "train.rl"]
    assert lines[10:14] == ["--model", *folders(tmp_path)[:1], "--output-dir", folders(tmp_path)[1]]
    assert lines[14:18] == ["--rollouts", "vllm", "--vllm-url", "http://10.0.0.2:8000"]
    assert lines[18:] == words


@pytest.mark.parametrize(
    ("words", "given", "sentence"),
    [
        (["serve", "MODEL", "out"], {}, "'serve' is no role"),
        (["both", "MODEL"], {}, "give the model's folder and the output folder"),
        (["both", "nowhere", "out"], {}, "there is no folder nowhere"),
        (["both", "MODEL", "out"], {"DEVICES": "tpu"}, "DEVICES=tpu"),
        (["both", "MODEL", "out"], {"SERVER_GPUS": "5,6"}, "GPU 5 is in LEARNER_GPUS and in"),
        (["both", "MODEL", "out"], {"SERVER_URL": "http://here"}, "has no port"),
        (["both", "MODEL", "OUT"], {"HEALTH": "0"}, "answers at http://127.0.0.1:8000 already"),
        (
            ["learner", "MODEL", "OUT"],
            {"HEALTH": "1", "SERVER_SECONDS": "0"},
            "has not answered for 0 s",
        ),
        (
            ["both", "MODEL", "OUT"],
            {"HEALTH": "1"},
            "the vLLM server ended before it was ready; its log is",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_learns(
    tmp_path: Path,
    prints: dict[str, str],
    words: list[str],
    given: dict[str, str],
    sentence: str,
) -> None:
    model, output = folders(tmp_path)
    named = {"MODEL": model, "OUT": output, "out": output}
    done = run(*[named.get(word, word) for word in words], environment=prints | given)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "train.rl" not in done.stdout


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_server_and_learner_start_learn_two_steps_and_end_together(tmp_path: Path) -> None:
    """For real, without a GPU: a tiny model, vLLM's CPU build, weights over gloo."""
    need_engines()
    world = render_questions(tmp_path / "world")
    model, output = served_folder("qwen2.5-vl"), tmp_path / "out"
    url = f"http://127.0.0.1:{free_port()}"
    options = rl_command(world, output, "--max-steps", "2", algo="grpo")[3:]
    for name in ("--model", "--output-dir"):
        place = options.index(name)
        del options[place : place + 2]
    given = {
        "DEVICES": "cpu",
        "SERVER_URL": url,
        "MAX_MODEL_LEN": "2048",
        "SERVER_PYTHON": str(ENGINES / "bin" / "python"),
        "LEARNER_PYTHON": sys.executable,
        "HF_HUB_OFFLINE": "1",
    }
    done = run("both", str(model), str(output), *options, environment=given, seconds=450)
    log = (output / "vllm.log").read_text("utf-8", "replace")
    assert done.returncode == 0, done.stderr[-3000:] + log[-2000:]
    assert len(read_metrics(output / "metrics.jsonl")) == 2
    assert "sampler/difference" in read_metrics(output / "metrics.jsonl")[0]
    assert (output / "model" / "model.safetensors").is_file()
    assert not processes_with(url.rsplit(":", 1)[1]), "the server is still there"


def processes_with(word: str) -> list[str]:
    """Command lines of running processes that contain a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if word.encode() in words:
            found.append(b" ".join(words).decode("utf-8", "replace"))
    return found


@pytest.mark.heavy
def test_a_stop_reaches_the_learner_and_the_server_ends_behind_it(tmp_path: Path) -> None:
    """Programs that only wait, in place of both: what is tested is who ends when."""
    (tmp_path / "model").mkdir()
    program = tmp_path / "waits"
    program.write_text(
        "#!/usr/bin/env bash\n"
        'if [ "$1" = - ]; then test -e "$READY"; exit; fi\n'
        'name=$([ "$2" = train.rl ] && echo learner || echo server)\n'
        "trap 'echo $name >>\"$ENDED\"; exit 3' TERM\n"
        '[ $name = learner ] || touch "$READY"\n'
        'echo begun >>"$ENDED.$name"\n'
        "while :; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    ended = tmp_path / "ended"
    given = {name: str(program) for name in ("LEARNER_PYTHON", "SERVER_PYTHON")}
    given |= {"DEVICES": "cpu", "READY": str(tmp_path / "ready"), "ENDED": str(ended)}
    process = subprocess.Popen(
        ["bash", str(NODES / "run.sh"), "both", *folders(tmp_path)],
        env={**os.environ, **given},
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 30
    while not Path(f"{ended}.learner").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 3
    assert ended.read_text().split() == ["learner", "server"]
    assert "train.rl writes a checkpoint and ends" in said


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((NODES / "compose.yaml").read_text("utf-8"))
    return read


def test_the_compose_file_starts_run_sh_and_waits_for_a_healthy_server() -> None:
    services = compose()["services"]
    assert services["server"]["command"][:2] == ["environment/nodes/run.sh", "server"]
    assert "environment/nodes/run.sh learner" in services["learner"]["command"][-1]
    assert services["learner"]["depends_on"] == {"server": {"condition": "service_healthy"}}
    assert "/health" in services["server"]["healthcheck"]["test"][1]
    for service in services.values():
        assert service["network_mode"] == service["ipc"] == "host"
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["count"], device["capabilities"]) == ("all", ["gpu"])
    gpus = [services[name]["environment"] for name in ("learner", "server")]
    assert gpus[0]["LEARNER_GPUS"].endswith(":-0,1,2,3,4,5}")
    assert gpus[1]["SERVER_GPUS"].endswith(":-6,7}")
    script = (NODES / "run.sh").read_text("utf-8")
    known = {"HF_HUB_OFFLINE", "ANTHROPIC_API_KEY"}
    for name in {**gpus[0], **gpus[1]}:
        assert name in known or name in script or name.startswith("NCCL_"), name
    docker = (NODES / "Dockerfile").read_text("utf-8")
    assert "vllm/vllm-openai:v0.31.0" in docker


@pytest.mark.heavy
@pytest.mark.slow
def test_the_compose_file_is_one_by_the_published_schema(repository: Path) -> None:
    """jsonschema comes with vLLM. A key that compose does not know is seen."""
    need_engines()
    schema = repository / "tests" / "reference" / "compose-spec.json"
    program = (
        "import json, sys, yaml, jsonschema\n"
        "schema = json.load(open(sys.argv[1]))\n"
        "content = yaml.safe_load(open(sys.argv[2]))\n"
        "kind = jsonschema.validators.validator_for(schema)\n"
        "kind.check_schema(schema)\n"
        "print([error.message for error in kind(schema).iter_errors(content)])\n"
        "content['services']['server']['restarts'] = 'no'\n"
        "print(kind(schema).is_valid(content))\n"
    )
    done = subprocess.run(
        [str(ENGINES / "bin/python"), "-c", program, str(schema), str(NODES / "compose.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "False"]
