"""What an audit of answer extraction draws from: the replies of an evaluation, and which answer its
rules and its `--answer-extractor` read in each.

Strata keep the replies that rules read apart from those that the extractor was asked about: these
are few, as a rule, and the ones of interest.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judges.audits.records import IN_THE_DATA, REAL, AuditVerdict, Verdict
from judges.audits.sample.population import JudgedRow, JudgedText, Population, table_rows
from schemas.dataset_rows import question_of_row
from schemas.questions import VideoQuestion
from schemas.samples import UnscoredReason
from schemas.serialization import one_line

RULES = "rules"
TOLERANT, STRICT = "tolerant rules", "strict rules"
Key = tuple[int, str, int]
_QUESTION = (
    "problem", "options", "solution", "problem_type", "data_source", "problem_id", "level", "paths",
    "kinds", "spans", "time_clues", "row",
)  # fmt: skip
_ANSWERS = (
    "output", "strict_answer", "strict_is_parsed", "tolerant_answer", "tolerant_is_parsed",
    "extracted_answer", "extracted_is_parsed", "extracted_by", "extracted_reason",
    "extracted_prompt",
)  # fmt: skip
_ANOTHER_WAY = (
    "give the predictions.parquet of train.evaluate with --answer-extractor; one of an earlier "
    "version is written anew by the same command, which pays for no call again"
)


@dataclass(frozen=True)
class Extractions:
    """The population with its texts, what the evaluation's readers said of each row, by its key,
    and how many rows were left out, by reason.
    """

    population: Population
    texts: dict[Key, JudgedText]
    said: dict[Key, tuple[AuditVerdict, ...]]
    left_out: Counter[str]


def read_extractions(path: Path) -> Extractions:
    """All replies of an evaluation that had an extractor. Raises ValueError, OSError."""
    rows: list[JudgedRow] = []
    texts: dict[Key, JudgedText] = {}
    said: dict[Key, tuple[AuditVerdict, ...]] = {}
    left_out: Counter[str] = Counter()
    draws: Counter[str] = Counter()
    table = table_rows(path, (*_QUESTION, *_ANSWERS), _ANOTHER_WAY)
    extractors = sorted({row["extracted_by"] for row in table} - {RULES, None})
    if table and all(row["extracted_by"] is None for row in table):
        raise ValueError(f"its evaluation asked no extractor of answers; {_ANOTHER_WAY}")
    reader = f"rules, then {' + '.join(extractors)}" if extractors else RULES
    for values in table:
        if not values["output"]:
            left_out["there is no reply"] += 1
            continue
        if values["extracted_by"] is None:
            left_out["no extractor was asked"] += 1
            continue
        question = _question(values)
        name = question.question_id
        verdicts = _verdicts(values, reader)
        last = verdicts[0]
        row = JudgedRow(
            place=0,
            question_id=name,
            draw=draws[name],
            verdict=last.verdict,
            unscored_reason=last.unscored_reason,
            judge=reader,
            prompt_id=last.prompt_id,
            problem_type=question.problem_type.value,
            data_source=_source(question, values["extracted_by"]),
            video=" + ".join(ref.path for ref in question.media),
        )
        draws[name] += 1
        rows.append(row)
        texts[row.key] = JudgedText(question, values["output"], "")
        said[row.key] = verdicts
    return Extractions(Population(tuple(rows), left_out.total()), texts, said, left_out)


def _source(question: VideoQuestion, read_by: str) -> str:
    who = "read by rules" if read_by == RULES else "extractor asked"
    return f"{question.data_source}, {who}" if question.data_source else who


def _question(values: dict[str, Any]) -> VideoQuestion:
    """Raises ValueError for a row that no evaluation wrote."""
    try:
        return question_of_row(values).model_copy(update={"row": values["row"]})
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"a row of it is no question ({one_line(str(error))})") from None


def _verdicts(values: dict[str, Any], reader: str) -> tuple[AuditVerdict, ...]:
    """What the evaluation's three ways of reading said, the one with the extractor first."""
    reason = values["extracted_reason"] or ""
    is_unscored = reason not in ("", UnscoredReason.NO_CONCLUSION.value)
    return (
        _verdict(values, "extracted", reader, reason if is_unscored else ""),
        _verdict(values, "tolerant", TOLERANT, ""),
        _verdict(values, "strict", STRICT, ""),
    )


def _verdict(values: dict[str, Any], way: str, judge: str, unscored_reason: str) -> AuditVerdict:
    is_read = bool(values[f"{way}_is_parsed"])
    words: dict[bool, Verdict] = {True: "yes", False: "unscored" if unscored_reason else "no"}
    return AuditVerdict(
        item_id="",
        judge=judge,
        variant=IN_THE_DATA,
        permutation=0,
        probe=REAL,
        repeat=0,
        verdict=words[is_read],
        unscored_reason="" if is_read else unscored_reason,
        prompt_id=(values["extracted_prompt"] or "") if way == "extracted" else "",
        call_key="",
        seconds=None,
        cost_usd=None,
        reply=(values[f"{way}_answer"] or "") if is_read else "",
    )
