"""TRL's own collator on the export; `tests/pipeline/test_export_formats.py` compares its rows."""

from pathlib import Path

import pytest
import transformers
from helpers.exports import load, trainer_ledger, trainer_questions, write_trainer_media
from helpers.training_world import tiny_model_folder
from PIL import Image
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from pipeline.exports.trl import export_trl
from schemas.questions import MediaRef

pytestmark = pytest.mark.heavy


def test_trls_collator_sees_every_image_and_learns_the_trace(tmp_path: Path) -> None:
    root = write_trainer_media(tmp_path / "media")
    one = trainer_questions()[2]
    two = one.model_copy(
        update={"media": (*one.media, MediaRef(kind="image", path="stills/z.png"))}
    )
    with trainer_ledger(tmp_path, [one, two]) as ledger:
        export_trl(ledger, tmp_path)
    rows = load(tmp_path / "trl", tmp_path / "cache")
    assert rows.column_names == ["messages", "images", "question_id"]
    opened = [
        {**row, "images": [Image.open(root / path) for path in row["images"]]} for row in rows
    ]
    processor = transformers.AutoProcessor.from_pretrained(tiny_model_folder("qwen2.5-vl"))
    batch = DataCollatorForVisionLanguageModeling(processor)(opened)
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4]] * 3
    learned = processor.tokenizer.decode(batch["labels"][0][batch["labels"][0] >= 0])
    target = (
        "<observation>seen seen seen</observation> <think>thought 2 0</think><answer>B</answer>"
    )
    assert target in learned
