"""The data card: what a dataset is, how it was made, what was left out and why, and what it cost.

Everything on it is read from the ledger and the dataset; the same ledger gives the same card.
"""

import json
import math
import re
import shutil
from datetime import datetime
from pathlib import Path

import jinja2
import yaml

from pipeline.card_facts import CardFacts, RunRow, collect_facts
from pipeline.folders import replaced_folder
from pipeline.pictures import draw_funnel, draw_lengths
from pipeline.progress import write_atomically
from schemas.dataset_rows import COLUMNS
from schemas.ledger import Ledger, SpendRow

_TEMPLATE = "card.md.jinja"
_MARKUP = re.compile(r"([\\`*\[\]<>|~$#!])")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_NAMES = ("1K", "10K", "100K", "1M", "10M")


def write_card(ledger: Ledger, out: Path, *, copy_to: Path | None = None) -> Path:
    """Write `OUT/README.md` and its pictures for `OUT/dataset`; returns the card's path.

    With `copy_to`, the card is also written there under the dataset's id, its pictures beside it.
    """
    facts = collect_facts(ledger, out / "dataset")
    pictures = out / "pictures"
    with replaced_folder(pictures) as fresh:
        draw_funnel(facts.stages, fresh / "funnel.png")
        draw_lengths({length.name: length.words for length in facts.lengths}, fresh / "lengths.png")
    card = out / "README.md"
    text = render_card(facts)
    write_atomically(card, text)
    if copy_to is not None:
        copy_to.mkdir(parents=True, exist_ok=True)
        with replaced_folder(copy_to / facts.dataset_id) as fresh:
            shutil.copytree(pictures, fresh, dirs_exist_ok=True)
        in_copy = text.replace("](pictures/", f"]({facts.dataset_id}/")
        write_atomically(copy_to / f"{facts.dataset_id}.md", in_copy)
    return card


def render_card(facts: CardFacts) -> str:
    """The card's text. Every name, id and detail that others chose is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown: the `cell` filter escapes
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": cell,
        "number": lambda count: f"{count:,}",
        "seconds": lambda value: "–" if value is None else f"{value:.1f}",
        "time": _time,
        "commit": _commit,
        "dollars": _dollars,
        "total_dollars": _total_dollars,
    }
    input_tokens = sum(
        row.input_tokens + row.cache_read_tokens + row.cache_write_tokens for row in facts.spend
    )
    return environment.get_template(_TEMPLATE).render(
        facts=facts,
        title=_title(facts),
        front_matter=front_matter(facts),
        share=lambda part, whole: f"{part / whole:.1%}" if whole else "–",
        input_tokens=input_tokens,
        columns=COLUMNS,
        settings=json.dumps(facts.settings, indent=1, ensure_ascii=False).replace("`", "\\u0060"),
    )


def front_matter(facts: CardFacts) -> str:
    """The YAML that the Hub and `datasets` read. The licence is left to whoever publishes."""
    tasks = {"video": "video-text-to-text", "image": "image-text-to-text"}
    fields = {
        "pretty_name": _title(facts),
        "license": "other",
        "license_name": "to-fill-in",
        "license_link": "to-fill-in",
        "task_categories": [tasks[kind] for kind in tasks if kind in facts.kinds]
        or ["video-text-to-text"],
        "size_categories": [size_category(facts.num_kept)],
        "tags": [
            "chain-of-thought",
            "video-question-answering",
            "synthetic",
            *(["sandbox"] if facts.is_scripted else []),
        ],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "dataset/*.parquet"}],
            }
        ],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).strip()


def size_category(num_rows: int) -> str:
    """The Hub's name for a size: `n<1K`, `1K<n<10K`, ..."""
    for place, limit in enumerate(_SIZES):
        if num_rows < limit:
            return f"{_SIZE_NAMES[place - 1]}<n<{_SIZE_NAMES[place]}" if place else "n<1K"
    return "n>10M"


def cell(text: object) -> str:
    """`text` on one line, with nothing in it that Markdown, HTML or a table would act on."""
    if text is None or not str(text).strip():
        return "–"
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return _EDGE_UNDERSCORE.sub(r"\\_", _MARKUP.sub(r"\\\1", line))


def _title(facts: CardFacts) -> str:
    kind = "sandbox chain-of-thought dataset" if facts.is_scripted else "chain-of-thought dataset"
    return f"Process-aware {kind} {facts.dataset_id.removeprefix('dataset-')[:8]}"


def _time(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _commit(run: RunRow) -> str:
    if run.commit is None:
        return ""
    return run.commit[:12] + (" with local changes" if run.dirty else "")


def _dollars(row: SpendRow) -> str:
    return _amount(row.cost_usd, row.unpriced_calls, row.calls)


def _total_dollars(facts: CardFacts) -> str:
    known = [row.cost_usd for row in facts.spend if row.cost_usd is not None]
    unpriced = sum(row.unpriced_calls for row in facts.spend)
    return _amount(
        math.fsum(known) if known else None, unpriced, sum(row.calls for row in facts.spend)
    )


def _amount(dollars: float | None, unpriced: int, calls: int) -> str:
    """Dollars, and in words what they leave out."""
    if dollars is None or unpriced == calls:
        return "price unknown"
    return f"{dollars:,.4f}" + (f" and {unpriced:,} calls of unknown price" if unpriced else "")
