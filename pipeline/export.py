"""The exports of a build by their former path; they live in `pipeline.exports`."""

from pipeline.exports.dataset import export_dataset, export_questions
from pipeline.exports.formats import export_further, refuse_unwritable_outputs
from pipeline.exports.rows import Exported
from pipeline.exports.trl import export_trl
from pipeline.exports.videop2r import export_videop2r

__all__ = [
    "Exported",
    "export_dataset",
    "export_further",
    "export_questions",
    "export_trl",
    "export_videop2r",
    "refuse_unwritable_outputs",
]
