"""The store: each file once, by the cheapest way; one outcome per file and run."""

import asyncio
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.media_clips import make_clip, numbered_picture, read_number
from PIL import Image

from media.frames import MediaError
from media.sampling import FrameSpec
from media.store import FrameStore
from schemas.questions import MediaRef
from schemas.samples import Reason

pytestmark = pytest.mark.heavy

CLIP = MediaRef(kind="video", path="clip.mp4")
STILL = MediaRef(kind="image", path="still.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    make_clip(folder / "clip.mp4", num_frames=12)
    Image.fromarray(numbered_picture(77)).save(folder / "still.png")
    (folder / "text.mp4").write_text("no clip\n" * 20)
    return folder


@pytest.fixture
def store(root: Path, tmp_path: Path) -> Iterator[Callable[..., FrameStore]]:
    stores = []

    def make(**options: object) -> FrameStore:
        settings = {"spec": FrameSpec("uniform:4"), "cache_dir": tmp_path / "cache", **options}
        stores.append(FrameStore(root, **settings))
        return stores[-1]

    yield make
    for made in stores:
        made.close()


def numbers(jpegs: tuple[bytes, ...]) -> list[int]:
    return [read_number(np.asarray(Image.open(BytesIO(jpeg)))) for jpeg in jpegs]


async def refusal(frames: FrameStore, ref: MediaRef) -> MediaError:
    with pytest.raises(MediaError) as caught:
        await frames.load(ref)
    return caught.value


async def test_clips_and_stills_are_loaded(store: Callable[..., FrameStore]) -> None:
    frames = store()
    clip, still = await asyncio.gather(frames.load(CLIP), frames.load(STILL))
    assert numbers(clip.jpegs) == [1, 4, 7, 10] == list(clip.indices)
    assert (clip.reader, still.reader) == ("decord", "pillow")
    assert numbers(still.jpegs) == [77]
    assert clip.media_id.startswith("video-")
    assert still.media_id.startswith("image-")
    assert clip.image_id(2) == f"{clip.media_id}/{frames.spec.frame_spec_id}/7"


async def test_a_clip_of_a_file_is_made_of_frames_inside_of_its_span_only(
    store: Callable[..., FrameStore], tmp_path: Path
) -> None:
    """12 frames, 30 a second: frames 3 to 8 begin from 0.1 to before 0.3 s."""
    frames = store(spec=FrameSpec("uniform:3"))
    refs = [CLIP, *(CLIP.model_copy(update={"start": 0.1, "end": end}) for end in (0.3, 0.2))]
    whole, part, other = await asyncio.gather(*map(frames.load, refs))
    assert numbers(whole.jpegs) == [2, 6, 10]
    assert numbers(part.jpegs) == [4, 6, 8] == list(part.indices)
    assert part.times == pytest.approx((4 / 30, 6 / 30, 8 / 30), rel=0, abs=1e-6)
    assert part.duration_seconds == pytest.approx(6 / 30, rel=0, abs=1e-6)
    assert numbers(other.jpegs) == [3, 4, 5]
    assert len({clip.image_id(0) for clip in (whole, part, other)}) == 3
    again = store(spec=FrameSpec("uniform:3"), reader="decord")
    assert [await again.load(ref) for ref in refs] == [whole, part, other]  # from the disk
    assert [await frames.load(ref) for ref in refs] == [whole, part, other]  # from memory


@pytest.mark.parametrize("span", [(7.0, 9.0), (0.11, 0.12)])
async def test_a_span_in_which_no_frame_begins_is_refused(
    store: Callable[..., FrameStore], span: tuple[float, float]
) -> None:
    error = await refusal(store(), CLIP.model_copy(update={"start": span[0], "end": span[1]}))
    assert error.reason is Reason.NO_FRAMES
    words = f"no frame begins between its start {span[0]:g} and its end {span[1]:g} s"
    assert words in error.detail
    assert "12 frames begin between 0.000 and 0.367 s" in error.detail


async def test_a_second_load_needs_neither_thread_nor_process(
    store: Callable[..., FrameStore],
) -> None:
    frames = store()
    first = await frames.load(CLIP)
    frames.close()
    assert await frames.load(CLIP) is first


async def test_another_run_reads_the_cache_and_starts_no_decoder(
    store: Callable[..., FrameStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await store().load(CLIP)
    later = store()
    later._decoders.close()  # a decoder that is needed now fails
    assert await later.load(CLIP) == first


async def test_without_a_cache_folder_nothing_is_written(
    store: Callable[..., FrameStore], tmp_path: Path
) -> None:
    await store(cache_dir=None).load(CLIP)
    assert not (tmp_path / "cache").exists()


async def test_loads_at_once_decode_once(store: Callable[..., FrameStore]) -> None:
    frames = store(cache_dir=None)
    loaded = await asyncio.gather(*(frames.load(CLIP) for _ in range(50)))
    assert len({id(clip) for clip in loaded}) == 1


async def test_a_load_that_is_given_up_leaves_the_others_alone(
    store: Callable[..., FrameStore],
) -> None:
    frames = store()
    first = asyncio.create_task(frames.load(CLIP))
    second = asyncio.create_task(frames.load(CLIP))
    await asyncio.sleep(0)
    first.cancel()
    assert len(await second) == 4


async def test_a_failure_is_kept_for_the_run(store: Callable[..., FrameStore], root: Path) -> None:
    frames = store()
    ref = MediaRef(kind="video", path="late.mp4")
    error = await refusal(frames, ref)
    assert error.reason is Reason.MISSING_FILE
    make_clip(root / "late.mp4", num_frames=3)
    assert (await refusal(frames, ref)).args == error.args
    assert len(await store().load(ref)) == 3


async def test_a_decoder_s_failure_is_kept_for_the_run(store: Callable[..., FrameStore]) -> None:
    frames = store()
    ref = MediaRef(kind="video", path="text.mp4")
    error = await refusal(frames, ref)
    assert error.reason is Reason.UNDECODABLE
    assert "'text.mp4'" in error.detail
    frames.close()
    assert (await refusal(frames, ref)).args == error.args
    with pytest.raises(MediaError):
        frames.check(ref)


async def test_a_file_that_is_replaced_is_read_anew(
    store: Callable[..., FrameStore], root: Path
) -> None:
    frames = store()
    first = await frames.load(STILL)
    Image.fromarray(numbered_picture(78)).save(root / "still.png")
    second = await frames.load(STILL)
    assert numbers(second.jpegs) == [78]
    assert second.media_id != first.media_id


async def test_a_link_that_is_turned_outside_later_is_refused(
    store: Callable[..., FrameStore], root: Path
) -> None:
    frames = store()
    ref = MediaRef(kind="image", path="link.png")
    (root / "link.png").symlink_to("still.png")
    await frames.load(ref)
    Image.fromarray(numbered_picture(9)).save(root.parent / "secret.png")
    (root / "link.png").unlink()
    (root / "link.png").symlink_to(root.parent / "secret.png")
    assert (await refusal(frames, ref)).reason is Reason.SYMLINK_OUTSIDE_ROOT
    assert numbers((await store(follow_symlinks=True).load(ref)).jpegs) == [9]


async def test_equal_files_share_an_entry(store: Callable[..., FrameStore], root: Path) -> None:
    (root / "copy.mp4").write_bytes((root / "clip.mp4").read_bytes())
    frames = store()
    first = await frames.load(CLIP)
    assert await frames.load(MediaRef(kind="video", path="copy.mp4")) is first


async def test_memory_holds_the_last_used_up_to_its_limit(
    store: Callable[..., FrameStore], root: Path
) -> None:
    for number in range(6):
        Image.fromarray(numbered_picture(number)).save(root / f"{number}.png")
    refs = [MediaRef(kind="image", path=f"{number}.png") for number in range(6)]
    size = (await store().load(refs[0])).num_bytes
    frames = store(memory_max_bytes=3 * size + size // 2)
    loaded = [await frames.load(ref) for ref in refs]
    await frames.load(refs[3])
    frames._disk.shutdown()  # what memory does not hold fails now
    for number in (3, 4, 5):
        assert await frames.load(refs[number]) is loaded[number]
    for number in (0, 1, 2):
        with pytest.raises(RuntimeError):
            await frames.load(refs[number])


def test_a_store_serves_one_event_loop_after_another(store: Callable[..., FrameStore]) -> None:
    frames = store()
    first = asyncio.run(frames.load(CLIP))
    assert asyncio.run(frames.load(CLIP)) is first
    assert numbers(asyncio.run(frames.load(STILL)).jpegs) == [77]


async def test_other_settings_are_other_entries(store: Callable[..., FrameStore]) -> None:
    few = await store(spec=FrameSpec("uniform:2")).load(CLIP)
    small = await store(spec=FrameSpec("uniform:2", max_pixels=900)).load(CLIP)
    by_pyav = await store(spec=FrameSpec("uniform:2"), reader="pyav").load(CLIP)
    assert len(few) == 2
    assert small.width * small.height <= 900
    assert few.media_id == small.media_id == by_pyav.media_id
    assert few.image_id(0) != small.image_id(0)
    assert by_pyav.reader == "pyav"


def test_check_finds_what_is_wrong_without_decoding(
    store: Callable[..., FrameStore], root: Path
) -> None:
    frames = store()
    frames._decoders.close()
    for ref in (CLIP, STILL, MediaRef(kind="video", path="text.mp4"), CLIP):
        frames.check(ref)
    (root / "empty.mp4").touch()
    os.mkfifo(root / "pipe.mp4")
    for path, reason in (
        ("../clip.mp4", Reason.UNSAFE_PATH),
        ("none.mp4", Reason.MISSING_FILE),
        ("empty.mp4", Reason.EMPTY_FILE),
        ("pipe.mp4", Reason.NOT_A_FILE),
    ):
        for _ in range(2):
            with pytest.raises(MediaError) as caught:
                frames.check(MediaRef(kind="video", path=path))
            assert caught.value.reason is reason


async def test_a_clip_decoded_too_slowly_is_a_timeout(
    store: Callable[..., FrameStore], root: Path
) -> None:
    make_clip(
        root / "slow.mp4",
        pictures=[np.full((720, 1280, 3), 4 * i, np.uint8) for i in range(60)],
    )
    frames = store(timeout_seconds=0.01, spec=FrameSpec("uniform:60"))
    error = await refusal(frames, MediaRef(kind="video", path="slow.mp4"))
    assert error.reason is Reason.DECODE_TIMEOUT
    assert "--decode-timeout-seconds" in error.detail


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reader": "ffmpeg"}, "'ffmpeg' is no reader: write decord, pyav, decord-then-pyav"),
        ({"workers": 0}, "workers at least 1"),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0"),
    ],
)
def test_impossible_settings_are_refused(
    store: Callable[..., FrameStore], options: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        store(**options)


def test_a_missing_media_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a directory"):
        FrameStore(tmp_path / "none", spec=FrameSpec(), cache_dir=None)
