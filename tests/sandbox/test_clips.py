"""The command that renders: files, bytes, questions that the readers take, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from cli.config import UsageError
from judges.scoring.answer_score import validate_gold
from sandbox.clips import main
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion

pytestmark = pytest.mark.heavy

SMALL = ("--clips", "4", "--stills", "2", "--num-questions", "40", "--seed", "9")


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "config.json"
    }


@pytest.mark.parametrize("preset", ["full", "tiny"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, preset: str) -> None:
    for name in ("a", "b"):
        assert main(["--out", str(tmp_path / name), "--preset", preset, *SMALL]) == 0
    first = files_of(tmp_path / "a")
    assert first == files_of(tmp_path / "b")
    assert {Path(name).suffix for name in first} == {".mp4", ".png", ".json"}
    assert main(["--out", str(tmp_path / "c"), "--preset", preset, *SMALL[:-1], "10"]) == 0
    other = files_of(tmp_path / "c")
    assert all(first[name] != other[name] for name in first if name.endswith((".mp4", ".png")))


def test_rendering_again_leaves_nothing_of_a_larger_world(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "a"), "--clips", "6", "--stills", "3", "--num-questions", "9"])
    main(["--out", str(tmp_path / "a"), *SMALL])
    main(["--out", str(tmp_path / "b"), *SMALL])
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_the_former_name_of_the_number_of_questions_still_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--out", str(tmp_path / "a"), *SMALL])
    former = ["--questions" if word == "--num-questions" else word for word in SMALL]
    capsys.readouterr()
    main(["--out", str(tmp_path / "b"), *former])
    assert "--num-questions" in capsys.readouterr().err.splitlines()[0]
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "truth").mkdir()
    (tmp_path / "videos" / "wedding.mp4").write_text("once in a lifetime")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"but not the config\.json of a run of sandbox\.clips"):
        main(["--out", str(tmp_path), *SMALL])
    kept = {path.name for path in tmp_path.rglob("*")}
    assert kept == {"videos", "truth", "wedding.mp4", "config.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kinds", "colour", "smell"], "smell.*choose among"),
        (["--preset", "tiny", "--kinds", "word"], "word: the 'tiny' preset asks colour, shape"),
        (["--clips", "0", "--stills", "0"], "leave nothing to ask about"),
        (["--clips", "0", "--kinds", "colour"], "colour: the 'full' preset asks still_colour"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(
    tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        main(["--out", str(tmp_path / "world"), *options])
    assert not (tmp_path / "world").exists()


def test_the_readers_take_every_question_and_every_gold_answer_can_be_scored(
    sandbox_world: Path,
) -> None:
    questions = list(read_questions(sandbox_world / "questions.json"))
    assert len(questions) == 300
    for question in questions:
        assert isinstance(question, VideoQuestion), question
        assert validate_gold(question) is None
        assert question.data_source.startswith("sandbox/")
        assert (sandbox_world / question.media[0].path).is_file()


def test_truth_world_and_sources_say_that_this_is_a_sandbox(sandbox_world: Path) -> None:
    truths = sorted((sandbox_world / "truth").iterdir())
    assert len(truths) == 60
    for path in (*truths, sandbox_world / "world.json"):
        assert json.loads(path.read_text())["sandbox"].startswith("sandbox: rendered")


def test_a_clip_s_file_has_the_frames_and_times_that_its_truth_names(sandbox_world: Path) -> None:
    import decord

    for path in sorted((sandbox_world / "truth").glob("clip_*.json"))[:6]:
        truth = json.loads(path.read_text())
        reader = decord.VideoReader(str(sandbox_world / truth["path"]))
        assert len(reader) == truth["frames"] == 32
        starts = reader.get_frame_timestamp(range(32))[:, 0]
        assert np.allclose(starts, np.arange(32) / truth["frames_per_second"], atol=1e-6)
        for question in truth["questions"]:
            times = starts[question["crucial_frames"]]
            spans = question["crucial_seconds"]
            assert all(any(a <= t < b for a, b in spans) for t in times)
            assert len(times) == sum(round((b - a) * 4) for a, b in spans)


def test_in_the_decoded_file_a_momentary_thing_is_there_in_the_crucial_frames_only(
    sandbox_world: Path,
) -> None:
    """By the decoded mp4's pixels: the thing's paint covers its place in those frames alone."""
    import decord

    paint = {"red": (220, 40, 40), "blue": (40, 70, 225), "green": (40, 180, 60)}
    looked = 0
    for path in sorted((sandbox_world / "truth").glob("clip_*.json")):
        truth = json.loads(path.read_text())
        names = {f"{thing['colour']} {thing['shape']}": thing for thing in truth["things"]}
        for question in truth["questions"]:
            row = json.loads((sandbox_world / "questions.json").read_text())[question["problem_id"]]
            thing = next((t for name, t in names.items() if name in row["problem"]), None)
            if question["kind"] != "span" or not thing or thing["colour"] not in paint:
                continue
            frames = decord.VideoReader(str(sandbox_world / truth["path"]))[:].asnumpy()
            # full preset, second slot: a quarter of the picture, an eighth right, a 14th up
            right, low = "right" in thing["place"], "bottom" in thing["place"]
            x = round(28 + 56 * right + 14 + thing["dx"])
            y = round(28 + 56 * low - 8 + thing["dy"])
            centre = frames[:, y - 1 : y + 2, x - 1 : x + 2].mean(axis=(1, 2))
            distance = np.abs(centre - paint[thing["colour"]]).max(axis=1)
            near = np.flatnonzero(distance < 40)
            assert near.tolist() == question["crucial_frames"], row["problem"]
            looked += 1
    assert looked >= 3
