"""Which Python `make` takes: machines with some, with old ones, with none but uv, with nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OLD = "#!/bin/sh\nexit 1\n"  # of what is asked here, an older one answers nothing with 0
NEW = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


def found(
    repository: Path, folder: Path, programs: dict[str, str], **env: str
) -> subprocess.CompletedProcess[str]:
    """The script on a machine that has these programs alone."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, text in programs.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    return subprocess.run(
        [bash, str(repository / "environment" / "find_python.sh"), str(folder / "venv")],
        env={"PATH": str(bin_folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("programs", "taken"),
    [
        ({"python3.11": NEW, "python3.13": NEW, "python3": NEW}, "python3.13"),
        ({"python3.13": OLD, "python3.12": NEW, "python3.11": NEW}, "python3.12"),
        ({"python3.11": OLD, "python3": NEW}, "python3"),
    ],
)
def test_the_first_that_is_new_enough_is_taken_and_said(
    programs: dict[str, str], taken: str, repository: Path, tmp_path: Path
) -> None:
    done = found(repository, tmp_path, programs)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/bin/{taken}\n")
    assert done.stderr.startswith("Python: 3.")
    assert taken in done.stderr


def test_what_an_environment_has_is_never_mixed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").write_text(NEW)
    (tmp_path / "venv/bin/python").chmod(0o755)
    done = found(repository, tmp_path, {"python3.13": NEW})
    assert done.stdout == f"{tmp_path}/venv/bin/python\n"


def test_uv_brings_one_where_there_is_none(repository: Path, tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    brought.write_text(NEW)
    brought.chmod(0o755)
    uv = f'#!/bin/sh\n[ "$2" = find ] && echo {brought}\nexit 0\n'
    done = found(repository, tmp_path, {"python3": OLD, "uv": uv})
    assert (done.returncode, done.stdout) == (0, f"{brought}\n")
    assert "brought by uv" in done.stderr


def test_without_any_a_sentence_says_what_to_install(repository: Path, tmp_path: Path) -> None:
    done = found(repository, tmp_path, {"python3": OLD})
    assert (done.returncode, done.stdout) == (2, "")
    assert "Python 3.11 or newer is needed" in done.stderr


def test_a_python_that_is_named_is_the_one_or_refused(repository: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text(NEW)
    mine.chmod(0o755)
    done = found(repository, tmp_path, {"python3.13": NEW}, PYTHON=str(mine))
    assert done.stdout == f"{mine}\n"
    mine.write_text(OLD)
    (tmp_path / "bin").rename(tmp_path / "old")
    done = found(repository, tmp_path, {"python3.13": NEW}, PYTHON=str(mine))
    assert done.returncode == 2
    assert "is no Python of 3.11 or newer" in done.stderr


def test_make_asks_it(repository: Path) -> None:
    """And does not make an environment anew that is there."""
    if not (repository / "Makefile").is_file() or shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "install"],
        cwd=repository,
        env={**os.environ, "PYTHON": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "environment/find_python.sh .venv" in done.stdout
