"""How a command ends: one sentence and a status, whatever happened."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.config import EXIT_STOPPED, EXIT_USAGE, nothing_to_resume, run_command
from cli.exit_status import EXTRA_OF_PACKAGE, missing_extra

# A shell lets processes in the background ignore Ctrl-C.
FOREGROUND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def ended(
    main: Callable[[], int], capsys: pytest.CaptureFixture[str], prog: str = "p"
) -> tuple[object, str]:
    with pytest.raises(SystemExit) as stopped:
        run_command(prog, main)
    return stopped.value.code, capsys.readouterr().err


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space is left on the disk of out/m; make room, and the same command"),
        (errno.EDQUOT, "no space is left on the disk of out/m"),
        (errno.EROFS, "out/m cannot be read or written (Read-only file system); give this user"),
        (errno.EACCES, "out/m cannot be read or written (Permission denied)"),
        (errno.EISDIR, "out/m cannot be used (Is a directory); mend that, and the same command"),
        (errno.EIO, "out/m cannot be used (Input/output error)"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_sentence(
    number: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:

    status, said = ended(raising(OSError(number, os.strerror(number), "out/m")), capsys)
    assert status == EXIT_STOPPED
    assert said.startswith(f"p: stopped: {words}")
    assert said.count("\n") == 1
    assert "resumes" in said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_the_caller_has_closed_takes_what_is_written(closed: str, tmp_path: Path) -> None:
    """The next file gets the number of a closed stream: a library would print into it."""
    program = tmp_path / "p.py"
    program.write_text(
        "import os, sys\n"
        "from cli.config import run_command\n"
        "def main():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        for number in (0, 1, 2):\n"
        "            assert os.get_inheritable(number)\n"
        "            assert number == 0 or os.write(number, b'of a library')\n"
        "        print('said', flush=True)\n"
        "        print('said', file=sys.stderr)\n"
        "        file.write('ledger')\n"
        "    return 0\n"
        "run_command('p', main)\n"
    )
    command = f'"{sys.executable}" "{program}" "{tmp_path / "ledger"}" {closed}'
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.replace("of a library", "")) in ((0, "said\n"), (0, ""))
    assert (tmp_path / "ledger").read_text() == "ledger"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_status_stays_where_nothing_can_be_said() -> None:
    for error, status in (("UsageError('x')", EXIT_USAGE), ("KeyboardInterrupt", EXIT_STOPPED)):
        program = (
            "from cli.config import UsageError, run_command\n"
            f"def main():\n    raise {error}\n"
            "run_command('p', main)\n"
        )
        with open("/dev/full", "wb") as full:
            ran = subprocess.run([sys.executable, "-c", program], stderr=full, check=False)
        assert ran.returncode == status


def test_other_errors_of_the_system_are_not_hidden() -> None:
    for error in (FileNotFoundError(errno.ENOENT, "no", "x"), OSError("odd"), PermissionError()):
        with pytest.raises(OSError, match=r".*") as seen:
            run_command("p", raising(error))
        assert seen.value is error


def test_a_real_file_in_the_place_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    def main() -> int:
        (tmp_path / "file" / "report.json").write_text("{}")
        return 0

    status, said = ended(main, capsys)
    assert status == EXIT_STOPPED
    assert f"{tmp_path / 'file' / 'report.json'} cannot be used (Not a directory)" in said


@pytest.mark.parametrize(
    ("prog", "package", "extra"),
    [
        ("train.sft", "torch", "train"),
        ("train.rl", "transformers", "train"),
        ("train.evaluate", "scipy", "train"),
        ("train.sft", "tensorboard", "train"),
        ("train.rl", "anthropic", "claude"),
        ("judges.audit report", "scipy", "audit"),
        ("judges.audit label", "gradio", "ui"),
        ("pipeline.build_cot", "torch", "local"),
        ("sandbox.tiny_model", "tokenizers", "local"),
        ("sandbox.tiny_model", "torch", "local"),
        ("sandbox.warm_up", "torch", "train"),
    ],
)
def test_the_extra_that_a_command_needs_is_named(prog: str, package: str, extra: str) -> None:
    error = ModuleNotFoundError(f"No module named {package!r}", name=f"{package}.nn")
    sentence = missing_extra(error, prog)
    assert sentence is not None
    install = f'pip install "videop2r-toolkit[{extra}]"'
    assert f"needs the package {package}, which is not installed: {install}" in sentence
    assert missing_extra(ModuleNotFoundError("x", name="numpy"), prog) is None


# What each command needs to begin, by its name and words; nothing of it is there.
BARE = {
    "train.sft": ["--model", "{}", "--dataset", "d", "--media-root", ".", "--out", "o"],
    "train.evaluate": ["--predictions", "p.jsonl"],
    "sandbox.tiny_model": ["--family", "llama", "--out", "o"],
    "sandbox.llama_judge": ["--out", "o"],
    "sandbox.warm_up": ["--model", "{}", "--out", "o"],
}


@pytest.mark.heavy
@pytest.mark.parametrize("command", BARE)
def test_without_the_extras_a_command_says_what_to_install(command: str, tmp_path: Path) -> None:
    code = f"""
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRA_OF_PACKAGE)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
runpy.run_module({command!r}, run_name="__main__", alter_sys=True)
"""
    (tmp_path / "p.jsonl").write_text("{}\n")
    words = [word.format(tmp_path) for word in BARE[command]]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
    )
    assert done.returncode == EXIT_USAGE, done.stderr
    assert "Traceback" not in done.stderr
    extra = "local" if "tiny_model" in command or "llama_judge" in command else "train"
    assert f'pip install "videop2r-toolkit[{extra}]"' in done.stderr


def test_ctrl_c_says_that_a_command_resumes_only_where_it_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def estimate() -> int:
        with nothing_to_resume("nothing was begun"):
            raise KeyboardInterrupt

    assert ended(estimate, capsys) == (EXIT_STOPPED, "p: stopped; nothing was begun\n")
    resumable = (EXIT_STOPPED, "p: stopped; the same command again resumes\n")
    assert ended(raising(KeyboardInterrupt()), capsys) == resumable


@pytest.mark.parametrize("room", ["pipeline", "train", "judges", "sandbox"])
@pytest.mark.parametrize("first", ["-m", "script.py"])
def test_ctrl_c_while_a_command_is_imported(room: str, first: str) -> None:
    """The first 0.3 s: no traceback of imports. A script that imports the room keeps its own."""
    code = (
        f"import sys; sys.argv[0] = {first!r}\n{FOREGROUND}"
        f"import {room}, os, signal\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "import time; time.sleep(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if first == "-m":
        assert done.returncode == EXIT_STOPPED
        assert done.stderr == "stopped before anything was begun\n"
    else:
        assert "KeyboardInterrupt" in done.stderr


def test_a_command_that_runs_takes_interrupts_itself() -> None:
    code = (
        f"import sys; sys.argv[0] = '-m'\n{FOREGROUND}"
        "import pipeline, os, signal\n"
        "from cli.config import run_command\n"
        "run_command('p', lambda: os.kill(os.getpid(), signal.SIGINT) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "p: stopped; the same command again resumes\n")
