"""Shell completion: what a shell offers after given words, asked of the shell itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.front.commands import SCRIPT
from cli.front.completion import SHELLS, completion, lines


@pytest.fixture(scope="module")
def bash_completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "vp2r.bash"
    file.write_text(completion("bash"), "utf-8")
    return file


def offered(file: Path, *words: str, folder: Path | None = None) -> list[str]:
    """What bash offers for the last of these words, which follow the script's name."""
    asked = " ".join(f"'{word}'" for word in (SCRIPT, *words))
    program = (
        f"source {file}; COMP_WORDS=({asked}); COMP_CWORD={len(words)}; _{SCRIPT}"
        '; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_bash_completes_subcommands_options_values_and_files(
    bash_completion: Path, tmp_path: Path
) -> None:
    (tmp_path / "questions.json").touch()
    assert offered(bash_completion, "s") == ["status", "sft"]
    assert offered(bash_completion, "build", "--gener") == ["--generator"]
    assert offered(bash_completion, "build", "--video-decoder", "d") == [
        "decord",
        "decord-then-pyav",
    ]
    assert offered(bash_completion, "audit", "r") == ["run", "report"]
    assert offered(bash_completion, "audit", "run", "--prob") == ["--probes"]
    assert offered(bash_completion, "audit", "gate", "--prob") == []
    named = offered(bash_completion, "build", "--questions", "q", folder=tmp_path)
    assert named == ["questions.json"]
    assert offered(bash_completion, "completion", "z") == ["zsh"]


def test_options_of_trl_are_offered_but_not_those_that_are_refused(bash_completion: Path) -> None:
    assert offered(bash_completion, "rl", "--num-gen") == ["--num-generations"]
    assert "--packing" not in offered(bash_completion, "sft", "--packing")
    assert "--max-steps" in offered(bash_completion, "sft", "--max-s")


def test_former_names_are_not_offered(bash_completion: Path) -> None:
    assert offered(bash_completion, "rl", "--start-check") == []


def test_every_flag_stands_in_every_shells_text() -> None:
    texts = {shell: completion(shell) for shell in SHELLS}
    for line in lines():
        for flag in line.flags:
            assert flag in texts["bash"]
            assert flag in texts["zsh"]
            assert f" -l {flag[2:]}" in texts["fish"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_itself_reads_its_text(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "file").write_text(completion(shell), "utf-8")
    subprocess.run([shell, "-n", tmp_path / "file"], check=True)


def test_nothing_heavy_is_loaded_to_print_it() -> None:
    code = (
        "import sys; from cli.front.completion import completion; completion('bash')\n"
        "print(sorted({'torch', 'transformers', 'trl', 'duckdb', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
