"""The console script: every subcommand, from a folder with the user's own `train.py`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.hard_places import TRACEBACK, environment

from cli.front import script
from cli.front.commands import COMMANDS, SCRIPT, named

INSTALLED = Path(sys.executable).parent / SCRIPT


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """Where somebody works who has a `train.py`, too."""
    for name in ("train", "pipeline", "judges", "cli", "schemas"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user''s own file ran')\n")
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = environment()
    env.pop("PYTHONPATH", None)
    return subprocess.run(
        [INSTALLED, *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.heavy
@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_is_its_module_wherever_one_works(name: str, user_folder: Path) -> None:
    done = run(user_folder, name, "--help")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert COMMANDS[name].module in done.stdout


@pytest.mark.slow
@pytest.mark.heavy
def test_commands_that_a_command_starts_are_ours_too(user_folder: Path) -> None:
    """The demo renders clips by a command of its own, then builds by another."""
    sizes = "--clips 4 --num-questions 8 --stills 1 --no-learning --audit-size 4"
    done = run(user_folder, "demo", "--output-dir", "out", *sizes.split())
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-1500:]
    assert (user_folder / "out/cot/README.md").exists()


@pytest.mark.heavy
def test_wrong_usage_is_one_sentence_and_names_what_there_is(user_folder: Path) -> None:
    done = run(user_folder, "biuld")
    assert done.returncode == 2
    assert TRACEBACK not in done.stderr
    assert done.stderr.startswith(f"{SCRIPT}: error: expected one of build, ")
    assert "did you mean 'build'?" in done.stderr
    assert run(user_folder).returncode == 2
    shown = run(user_folder, "--help")
    assert shown.returncode == 0
    assert all(f"  {name} " in shown.stdout for name in (*COMMANDS, "completion"))
    assert "takes the name of a shell" in run(user_folder, "completion", "tcsh").stderr


def test_the_table_names_what_is_there(repository: Path) -> None:
    for command in COMMANDS.values():
        path = repository / command.module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        for reference in filter(None, (command.config, command.others, command.parts)):
            assert named(reference)
    assert script._NAME == SCRIPT


@pytest.mark.heavy
def test_ctrl_c_while_the_script_is_imported_is_one_line(tmp_path: Path) -> None:
    hook = (
        "import os, signal, sys\n"
        "class Hook:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == os.environ['AT']:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hook())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hook)
    for name in ("cli.config", "pydantic", "pipeline.build_cot", "pipeline.options"):
        done = subprocess.run(
            [str(INSTALLED), "build", "--check", "--questions", "q"],
            env=environment(AT=name, PYTHONPATH=str(tmp_path), PATH=os.environ["PATH"]),
            capture_output=True,
            text=True,
            check=False,
            # pytest may have been started with the signal ignored, as shells do behind `&`
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert (done.returncode, done.stdout) == (3, ""), f"{name}: {done.stderr}"
        assert len(done.stderr.splitlines()) == 1, done.stderr
