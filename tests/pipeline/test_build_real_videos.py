"""The 27 questions about real clips: what the model server receives are the clips' own frames."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.builds import build_command, dataset_rows, query, run_build
from PIL import Image
from servers.model_server import RunningServer, running_server

MAX_PIXELS = 128 * 28 * 28
# JPEG at quality 95 after one downscale, against the other decoder's frame scaled by the same rule;
# 4:2:0 video and another resampler's rounding stay below this mean difference of 255 levels.
MAX_MEAN_DIFFERENCE = 6.0

pytestmark = [pytest.mark.data, pytest.mark.heavy]


def _replies(questions: list[dict[str, Any]], path: Path) -> Path:
    """Written replies: the right answer for each question, and a judge who says Yes."""
    rules = []
    for question in questions:
        answer = question["solution"].removeprefix("<answer>").removesuffix("</answer>")
        output = (
            "<observation>Based on the question, I need to notice what happens. The clip shows it "
            "plainly.</observation> <think>Based on the observations, it follows. Let me "
            f"double-check. Yes.</think><answer>{answer}</answer>"
        )
        rules.append(
            {"contains": question["problem"], "pattern": "Visual Observation", "reply": output}
        )
    rules.append({"contains": "### Observations", "reply": "It does.\n<judgement>Yes</judgement>"})
    path.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    return path


def _square(frame: av.VideoFrame, stream: av.VideoStream) -> Image.Image:
    """The picture as players show it: one clip has pixels that are not square."""
    picture, aspect = frame.to_image(), stream.sample_aspect_ratio or 1
    return picture.resize((round(picture.width * max(1, aspect)), picture.height))


def _pyav_frames(path: Path, indices: list[int]) -> tuple[list[Image.Image], list[float]]:
    wanted, pictures, times = set(indices), {}, {}
    if path.suffix in (".png", ".jpg"):
        return [Image.open(path).convert("RGB")], [0.0]
    with av.open(str(path)) as container:
        # One clip carries two video streams; players and decoders show the better one.
        stream = container.streams.best("video")
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                pictures[index], times[index] = _square(frame, stream), frame.time
    return [pictures[i] for i in indices], [times[i] for i in indices]


@pytest.fixture
def served(shared_data: Path, tmp_path: Path):
    questions = json.loads((shared_data / "real" / "questions.json").read_text())
    images = tmp_path / "images"
    with running_server(
        tmp_path / "requests.jsonl",
        replies=_replies(questions, tmp_path / "replies.jsonl"),
        dump_images=images,
    ) as server:
        yield server, questions, images


@pytest.mark.parametrize("batch", [False, True], ids=["live", "batch"])
@pytest.mark.slow
def test_real_frames_go_over_the_wire_in_count_size_and_order(
    served: tuple[RunningServer, list[dict[str, Any]], Path],
    shared_data: Path,
    tmp_path: Path,
    batch: bool,
) -> None:
    server, questions, images = served
    out, root = tmp_path / "out", shared_data / "real"
    extra = ["--batch", "--batch-linger-seconds=1", "--batch-poll-seconds=0.3"] if batch else []
    done = run_build(
        build_command(root / "questions.json", out, *extra, media_root=root), server.url
    )
    assert done.returncode == 0, done.stderr
    rows = {row["problem"]: row for row in dataset_rows(out)}
    assert len(rows) == len(questions) == 27
    sent = [
        record
        for record in server.requests("batch-request" if batch else "/v1/messages")
        if record["images"]
    ]
    assert len(sent) == 27
    for record in sent:
        (problem,) = [text for text in rows if text in record["text"]]
        row = rows[problem]
        indices, path = row["frame_indices"], root / row["path"]
        expected, times = _pyav_frames(path, indices)
        assert len(record["images"]) == len(indices) == (16 if row["data_type"] == "video" else 1)
        assert indices == sorted(set(indices))
        assert row["frame_times"] == pytest.approx(times, abs=0.051)  # half a frame at 10 fps
        for seen, picture in zip(record["images"], expected, strict=True):
            width, height = seen["width"], seen["height"]
            assert width * height <= MAX_PIXELS
            assert width / height == pytest.approx(picture.width / picture.height, rel=0.02)
            jpeg = Image.open(next(images.glob(f"{seen['sha256']}.*"))).convert("RGB")
            reference = picture.resize((width, height), Image.Resampling.LANCZOS)
            difference = np.abs(
                np.asarray(jpeg, np.float32) - np.asarray(reference, np.float32)
            ).mean()
            assert difference < MAX_MEAN_DIFFERENCE, (problem, difference)
    assert query(out, "select count(*) from accepted") == [(27,)]
