"""The table of further formats: names, what stands in their way, options of a build."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from helpers.exports import bytes_of, trainer_ledger, write_trainer_media

from cli.config import UsageError
from pipeline.card import write_card
from pipeline.exports.dataset import export_dataset
from pipeline.exports.formats import FORMATS, export_further, refuse_unwritable_outputs
from pipeline.options import BuildConfig, ExportFormat

BUILD = {"questions": "q.json", "media_root": "clips", "generator": "oracle:1", "judge": "oracle:1"}


def test_the_option_offers_what_the_table_has() -> None:
    assert get_args(ExportFormat) == tuple(FORMATS)


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_file_in_the_place_of_any_format_is_refused_before_anything_is_asked(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{name} is no folder.* move it away"):
        refuse_unwritable_outputs(tmp_path)


@pytest.mark.heavy
def test_equal_ledgers_give_equal_bytes_and_each_format_stays_in_its_folder(
    tmp_path: Path,
) -> None:
    root = write_trainer_media(tmp_path / "media")
    for out in ("one", "two"):
        with trainer_ledger(tmp_path / out, media_root=str(root)) as ledger:
            said = export_further(ledger, tmp_path / out, list(FORMATS))
        assert len(said) == len(FORMATS)
        (tmp_path / out / "cot.duckdb").unlink()
    for name in FORMATS:
        assert bytes_of(tmp_path / "one" / name) == bytes_of(tmp_path / "two" / name) != {}
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(FORMATS)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("trl", "videop2r")])
def test_files_of_others_stay_where_a_format_is_brought_up_to_date(
    tmp_path: Path, name: str
) -> None:
    with trainer_ledger(tmp_path, media_root=str(tmp_path)) as ledger:
        export_further(ledger, tmp_path, [name])
        (tmp_path / name / "mine.jsonl").write_text("mine")
        (said,) = export_further(ledger, tmp_path, [])
        assert f"--export {name} brings it up to date" in said
        export_further(ledger, tmp_path, [name])
    assert (tmp_path / name / "mine.jsonl").read_text() == "mine"


def test_a_relative_folder_of_another_machine_is_refused() -> None:
    options = BUILD | {"output_dir": "out", "export_media_root": "clips"}
    with pytest.raises(ValueError, match="--export-media-root clips is relative"):
        BuildConfig.model_validate(options)
    options |= {"export_media_root": "/data/clips", "export": ["ms-swift", "verl"]}
    assert BuildConfig.model_validate(options).export == ("ms-swift", "verl")


def test_the_card_says_who_reads_what_lies_beside_the_dataset(tmp_path: Path) -> None:
    root = write_trainer_media(tmp_path / "media")
    with trainer_ledger(tmp_path, media_root=str(root)) as ledger:
        export_dataset(ledger, tmp_path)
        before = write_card(ledger, tmp_path).read_text("utf-8")
        export_further(ledger, tmp_path, ["llamafactory", "hf-video-embedded"])
        (tmp_path / "verl").mkdir()
        after = write_card(ledger, tmp_path).read_text("utf-8")
    row = f"| `llamafactory/` | {FORMATS['llamafactory'].reader} |"
    assert row in after
    assert row not in before
    assert "`verl/`" not in after, "an empty folder is no export"
    configs = configurations(after)
    assert configs == {"default": "dataset/*.parquet", "video": "hf-video-embedded/*.parquet"}
    assert configurations(before) == {"default": "dataset/*.parquet"}


def configurations(card: str) -> dict[str, str]:
    """Configurations in a card's first lines, as the Hub reads them."""
    fields = yaml.safe_load(card.split("---\n")[1])
    return {each["config_name"]: each["data_files"][0]["path"] for each in fields["configs"]}
