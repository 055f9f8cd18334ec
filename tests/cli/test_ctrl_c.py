"""Ctrl-C in the first second of a command: no traceback and status 3, whatever is being imported.

The moments are places in the program, not times: a hook sends the signal when the n-th module after
`cli` is looked for, so a busy machine tries the same ones.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.hard_places import TRACEBACK, environment

pytestmark = pytest.mark.heavy

_HOOK = """
import os, signal, sys
class Counter:
    left = int(os.environ["AFTER"])
    def find_spec(self, name, path=None, target=None):
        if "cli" in sys.modules:
            Counter.left -= 1
            if not Counter.left:
                os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Counter())
"""
MOMENTS = (1, 2, 3, 10, 40, 120, 240)
COMMANDS = {
    "train.rl": "--algo grpo --questions q.json --media-root . --model ./m --output-dir out",
    "pipeline.build_cot": "--questions q.json --media-root . --check",
}


def interrupted(words: list[str], folder: Path, after: int) -> subprocess.CompletedProcess[str]:
    """A command that gets Ctrl-C when the n-th module after `cli` is looked for."""
    (folder / "sitecustomize.py").write_text(_HOOK, "utf-8")
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment(AFTER=str(after), PYTHONPATH=paths),
        capture_output=True,
        text=True,
        check=False,
        # pytest may have been started with the signal ignored, as shells do behind `&`
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("after", MOMENTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_moment_of_the_imports_ends_in_a_traceback(
    command: str, after: int, tmp_path: Path
) -> None:
    done = interrupted(["-m", command, *COMMANDS[command].split()], tmp_path, after)
    said = done.stdout + done.stderr
    assert TRACEBACK not in said, said
    assert done.returncode == 3, said
    assert len(done.stderr.splitlines()) == 1, said
    assert not (tmp_path / "out").exists()
