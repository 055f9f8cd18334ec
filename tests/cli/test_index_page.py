"""The index of an output folder: everything in it is linked, every link leads somewhere."""

import json
from pathlib import Path

import pytest
from helpers.html_tags import Tags, linked

from cli.index_page import write_index_page

BUILD = {"attempts": 1, "questions": "", "media_root": ""}
PNG = bytes.fromhex("89504e470d0a1a0a")


def make(folder: Path, files: dict[str, bytes | str | dict[str, object]]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def links(folder: Path) -> dict[str, Path]:
    """The links of a folder's index, and where each leads; all of them are there."""
    found = linked(folder / "index.html")
    missing = [href for href, place in found.items() if not place.exists()]
    assert not missing
    assert not [href for href in found if "://" in href]
    return found


@pytest.fixture
def build(tmp_path: Path) -> Path:
    questions, root = tmp_path / "q #1?.json", tmp_path / "clips"
    questions.write_text("[]")
    root.mkdir()
    return make(
        tmp_path / "cot",
        {
            "config.json": {**BUILD, "questions": str(questions), "media_root": str(root)},
            "cot.duckdb": b"x" * 2500,
            "README.md": "# card",
            "dataset/train-00000-of-00001.parquet": b"x",
            "pictures/funnel.png": PNG,
            "browse/index.html": "<p>",
            "browse/rows-00001.html": "<p>",
            "a #name?.txt": "x",
            ".hidden": "x",
            "cot.duckdb.wal": "x",
            "cot.duckdb.tmp/spilled": "x",
        },
    )


def test_every_file_is_linked_and_a_folder_with_an_index_by_that_alone(build: Path) -> None:
    write_index_page(build)
    places = {
        str(place.relative_to(build)) for place in links(build).values() if build in place.parents
    }
    assert places == {
        "config.json",
        "cot.duckdb",
        "README.md",
        "dataset/train-00000-of-00001.parquet",
        "pictures/funnel.png",
        "browse/index.html",
        "a #name?.txt",
    }
    page = (build / "index.html").read_text("utf-8")
    assert "a build, by pipeline.build_cot" in page
    assert "ledger: every call, verdict and price" in page
    assert "2.5 kB" in page
    assert 'src="data:image/png' in page


def test_a_folder_of_a_cache_is_closed_and_one_with_results_is_open(build: Path) -> None:
    make(build, {"cache/a.lock": "", "cache/b.arrow": "x"})
    write_index_page(build)
    page = (build / "index.html").read_text("utf-8")
    assert "<details open><summary>pictures/ (1 file)" in page
    assert "<details><summary>cache/ (2 files)" in page


def test_a_folder_with_many_files_is_listed_in_part_and_linked(tmp_path: Path) -> None:
    make(tmp_path / "out", {f"many/{number:03d}.bin": b"x" for number in range(210)})
    write_index_page(tmp_path / "out")
    found = links(tmp_path / "out")
    assert sum(href.startswith("many/0") for href in found) == 100
    assert len(found) == 201
    assert "and 10 more in" in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_origins_lead_back_to_what_nobody_made(build: Path, tmp_path: Path) -> None:
    """model -> run -> dataset -> build -> questions, each with its link."""
    write_index_page(build)
    sft = make(
        tmp_path / "sft",
        {
            "options.json": {
                "target": "gold",
                "model": "Qwen/Qwen2.5-VL-7B-Instruct",
                "dataset": [str(build)],
            },
            "model.safetensors": b"x",
        },
    )
    write_index_page(sft)
    rl = make(
        tmp_path / "rl",
        {"options.json": {"algo": "grpo", "model": str(sft)}, "model/config.json": "{}"},
    )
    write_index_page(rl)
    scores = make(
        tmp_path / "scores",
        {"config.json": {"compare": None, "model": str(rl / "model")}, "answers.jsonl": "x"},
    )
    write_index_page(scores)
    places = list(links(scores).values())
    wanted = [rl / "model", rl / "index.html", sft / "index.html", build / "index.html"]
    wanted += [tmp_path / "q #1?.json", tmp_path / "clips"]
    assert [place for place in places if place in wanted] == wanted
    page = (scores / "index.html").read_text("utf-8")
    assert "model: Qwen/Qwen2.5-VL-7B-Instruct" in page
    assert "a reinforcement learning run in" in page


def test_what_was_moved_away_is_named_and_folders_that_name_each_other_end(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options = {"algo": "grpo", "questions": str(tmp_path / "gone.json")}
    make(one, {"options.json": {**options, "model": str(two), "audit": str(one)}})
    make(two, {"options.json": {**options, "model": str(one)}})
    write_index_page(one)
    assert two in links(one).values()
    assert one not in links(one).values()
    assert f"questions: {tmp_path / 'gone.json'}" in (one / "index.html").read_text("utf-8")


def test_folders_that_come_from_each_other_are_followed_once(tmp_path: Path) -> None:
    """one <- two <- three <- two: the second time three is not shown again."""
    names = {"one": "two", "two": "three", "three": "two"}
    for name, model in names.items():
        make(tmp_path / name, {"options.json": {"algo": "grpo", "model": str(tmp_path / model)}})
    write_index_page(tmp_path / "one")
    page = (tmp_path / "one" / "index.html").read_text("utf-8")
    assert page.count(f">{tmp_path / 'three'}<") == 1
    assert page.count(f">{tmp_path / 'two'}<") == 2


def test_what_goes_while_the_index_is_written_is_left_out(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer replaces checkpoints while its page is written."""
    real = Path.read_bytes

    def read_and_lose(path: Path) -> bytes:
        if path.name == "funnel.png":  # the folder is listed already
            (path.parent / "lost.png").unlink()
        return real(path)

    make(build, {"pictures/lost.png": PNG})
    monkeypatch.setattr(Path, "read_bytes", read_and_lose)
    write_index_page(build)
    assert "pictures/funnel.png" in links(build)
    assert "lost.png" not in (build / "index.html").read_text("utf-8")


def test_further_origins_can_be_given_and_hostile_names_stay_names(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>.txt"
    out = make(tmp_path / "out", {hostile: "x"})
    audit = make(tmp_path / "audit", {"index.html": "<p>"})
    write_index_page(out, {"audit": audit})
    assert (audit / "index.html").resolve() in links(out).values()
    page = (out / "index.html").read_text("utf-8")
    assert not [1 for tag, _ in Tags(page).tags if tag == "img"]
    assert hostile in Tags(page).texts
