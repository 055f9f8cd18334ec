"""`judges.audit sample`: draw verdicts of a build or RL run for people and judges to repeat."""

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import Field

from cli.config import (
    EXIT_OK,
    UsageError,
    print_config,
    refuse_changed_options,
    save_config,
    say,
)
from cli.index_page import write_index_page
from cli.option_groups import AuditOptions, MediaRootOptions, PredictionsOptions, SeedOptions
from cli.output_folder import check_folder, claim_folder

if TYPE_CHECKING:
    from judges.audits.sample.population import JudgedRow, JudgedText, Population
    from judges.audits.store import AuditItem, AuditVerdict, Stratum

    TextsOf = Callable[[Sequence[JudgedRow]], dict[tuple[int, str, int], JudgedText]]

T = TypeVar("T")
_COMMAND = "judges.audit sample"
BUILD_LEDGER = "cot.duckdb"
RUN_LEDGERS = "judge-*.duckdb"


class SampleConfig(
    AuditOptions,
    PredictionsOptions[Path | None],
    MediaRootOptions[Path | None],
    SeedOptions,
    defaults={"predictions": None, "media_root": None},
    notes={
        "audit": "This command makes it.",
        "predictions": "For --kind think-answer and --kind answer-extraction.",
        "media_root": "By default the build's own.",
    },
    group="data",
    example="out/audit --build out/build --size 200",
):
    """Options of `judges.audit sample`."""

    build: Path | None = None
    """Output folder of a finished build; its cot.duckdb is read, its config.json names the media
    root."""
    run: Path | None = None
    """Instead of --build: output folder of an RL run (train.rl) that has ended or stands still; the
    ledgers of all its processes are read."""
    ledger: tuple[Path, ...] = ()
    """Instead of --build: ledger files with the same tables, wherever they are."""
    kind: Literal["sufficiency", "think-answer", "answer-extraction"] = "sufficiency"
    """What is audited: the judge of observations; the extractor that reads which option a reasoning
    concludes (does the answer follow from the thinking?); or that of train.evaluate
    --answer-extractor, which reads which answer a reply states."""
    size: int = Field(200, ge=1)
    """How many verdicts to draw."""
    max_per_video: int = Field(2, ge=1)
    """How many of them may come from one video: rows of a video are not independent."""
    min_per_stratum: int = Field(5, ge=1)
    """Rows from every combination of verdict, problem type and data source that has them; at most
    half of the sample is spent on these minimums."""


def sample(config: SampleConfig) -> int:
    """Draw the rows and store them; the same command again changes nothing."""
    from judges.audits.store import CONFIG_NAME, AuditStore
    from schemas.runs import start_run

    saved = config.audit / CONFIG_NAME
    if check_folder(config.audit, _COMMAND, option="--audit"):
        refuse_changed_options(config, saved, may_change={"audit"})  # the folder may have moved
    drawn_from = _drawn_from(config)
    population = drawn_from.population
    media_root = _media_root(config)
    items, strata = draw(population, drawn_from.texts_of, config)
    run = start_run(_COMMAND, config)
    claim_folder(config.audit, _COMMAND, option="--audit")
    save_config(config, saved)
    with AuditStore.create(config.audit, run) as store:
        if store.num_items:
            say(
                f"{config.audit} has its {store.num_items} rows already; nothing was changed",
                sys.stdout,
            )
            return EXIT_OK
        print_config(config)
        source = {
            "kind": config.kind,
            "ledgers": [str(path.resolve()) for path in drawn_from.files],
            "media_root": None if media_root is None else str(media_root.resolve()),
            "seed": config.seed,
            "max_per_video": config.max_per_video,
            "population": len(population.rows),
            "videos": len({row.video for row in population.rows}),
            "not_judged": population.num_not_judged,
            "run_id": run.run_id,
        }
        store.add_sample(items, strata, source, drawn_from.verdicts_on(items))
        store.ledger.end_run(EXIT_OK)
    write_index_page(config.audit)
    _print_sample(config, population, items, strata, media_root)
    return EXIT_OK


def draw(
    population: "Population", texts_of: "TextsOf", config: SampleConfig
) -> tuple[list["AuditItem"], list["Stratum"]]:
    """The drawn rows with their weights and blind places, and the strata with their counts."""
    from judges.audits.sample.stratified_draw import (
        allocation,
        dependent_rounding,
        inclusion_probabilities,
    )
    from judges.audits.store import AuditItem, Stratum, Verdict
    from schemas.serialization import content_id

    rng = random.Random(config.seed)
    rows, counts = population.rows, population.counts()
    strata = [row.stratum for row in rows]
    videos = [row.video for row in rows]
    wanted = allocation(counts, config.size, config.min_per_stratum)
    chances = inclusion_probabilities(strata, videos, wanted, config.max_per_video)
    is_drawn = dependent_rounding(videos, strata, chances, rng)
    drawn = [(row, chance) for row, chance, yes in zip(rows, chances, is_drawn, strict=True) if yes]
    rng.shuffle(drawn)
    texts = texts_of([row for row, _ in drawn])
    items = [
        AuditItem(
            item_id=content_id("audit-item", [*row.key, texts[row.key].observation]),
            question=texts[row.key].question,
            observation=texts[row.key].observation,
            source_verdict=cast(Verdict, row.verdict),
            source_judge=row.judge,
            source_prompt_id=row.prompt_id,
            video=row.video,
            stratum=row.stratum,
            weight=1 / chance,
            position=position,
            inclusion_probability=chance,
            source_unscored_reason=row.unscored_reason,
            draw=row.draw,
            frame_spec=texts[row.key].frame_spec,
        )
        for position, (row, chance) in enumerate(drawn)
    ]
    sampled = Counter(item.stratum for item in items)
    cells = {
        row.stratum: (cast(Verdict, row.verdict), row.problem_type, row.data_source) for row in rows
    }
    return items, [
        Stratum(name, *cells[name], population=counts[name], sampled=sampled[name])
        for name in sorted(counts)
    ]


@dataclass(frozen=True)
class _Source:
    """The files, all that can be drawn from them, how to get the texts of what is drawn, and what
    was said of a row there by others than the audited judge.
    """

    files: list[Path]
    population: "Population"
    texts_of: "TextsOf"
    said: "Mapping[tuple[str, int], Sequence[AuditVerdict]]" = field(default_factory=dict)

    def verdicts_on(self, items: "Sequence[AuditItem]") -> "list[AuditVerdict]":
        """What was said of the drawn rows."""
        return [
            replace(verdict, item_id=item.item_id)
            for item in items
            for verdict in self.said.get((item.question.question_id, item.draw), ())
        ]


def _drawn_from(config: SampleConfig) -> _Source:
    if config.kind == "think-answer":
        return _answers(config)
    if config.kind == "answer-extraction":
        return _extractions(config)
    from judges.audits.sample.population import read_population, read_texts

    if config.predictions is not None:
        raise UsageError(
            "--predictions is for --kind think-answer and --kind answer-extraction; give --build "
            "OUT, or one of these kinds"
        )
    ledgers = _ledgers(config)
    population = read_population(ledgers)
    if not population.rows:
        raise UsageError(
            f"{', '.join(map(str, ledgers))} holds no verdict of a judge, so there is nothing to "
            "audit; give a build that got as far as its judge"
        )
    return _Source(ledgers, population, lambda rows: read_texts(ledgers, rows))


def _read_predictions(config: SampleConfig, read: Callable[[Path], T]) -> tuple[Path, T]:
    """The file of answers, and what `read` makes of it.

    Raises UsageError where another source was given or the file cannot be read.
    """
    path = config.predictions
    if path is None or config.build or config.run or config.ledger:
        raise UsageError(
            f"--kind {config.kind} draws from answers: give --predictions FILE, and neither "
            "--build, --run nor --ledger"
        )
    try:
        return path, read(path)
    except OSError as error:
        raise UsageError(f"--predictions {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"--predictions {path}: {error}") from None


def _extractions(config: SampleConfig) -> _Source:
    from judges.audits.sample.extractions import read_extractions

    path, found = _read_predictions(config, read_extractions)
    if not found.population.rows:
        reasons = ", ".join(f"{why} ({count})" for why, count in found.left_out.most_common())
        raise UsageError(
            f"--predictions {path} holds no reply to audit{f': {reasons}' if reasons else ''}"
        )
    return _Source(
        [path],
        found.population,
        lambda rows: {row.key: found.texts[row.key] for row in rows},
        {key[1:]: verdicts for key, verdicts in found.said.items()},
    )


def _answers(config: SampleConfig) -> _Source:
    from judges.audits.sample.population import read_answers

    path, answers = _read_predictions(config, read_answers)
    if not answers.population.rows:
        reasons = ", ".join(f"{why} ({count})" for why, count in answers.left_out.most_common())
        raise UsageError(
            f"--predictions {path} holds no multiple-choice answer with a reasoning"
            f"{f': {reasons}' if reasons else ''}"
        )
    return _Source(
        [path],
        answers.population,
        lambda rows: {row.key: answers.texts[row.key] for row in rows},
    )


def _ledgers(config: SampleConfig) -> list[Path]:
    given = {"--build": config.build, "--run": config.run, "--ledger": config.ledger}
    named = [name for name, value in given.items() if value]
    if len(named) != 1:
        raise UsageError(
            "give either --build OUT, the folder of a finished build, --run OUT, that of an RL "
            "run, or --ledger FILE; "
            f"{' and '.join(named) + ' were' if named else 'none of them was'} given"
        )
    if config.run is not None:
        if not (found := sorted(config.run.glob(RUN_LEDGERS))):
            raise UsageError(
                f"--run {config.run} holds no {RUN_LEDGERS}; give the --output-dir of a train.rl "
                "run that had a judge"
            )
        return found
    if config.build is None:
        return list(config.ledger)
    if not (config.build / BUILD_LEDGER).is_file():
        raise UsageError(
            f"--build {config.build} holds no {BUILD_LEDGER}; give the --output-dir of a build"
        )
    return [config.build / BUILD_LEDGER]


def _media_root(config: SampleConfig) -> Path | None:
    """Where the videos lie; None where only labels from elsewhere and text judges are possible."""
    if config.media_root is not None:
        if not config.media_root.is_dir():
            raise UsageError(
                f"--media-root {config.media_root} is not a folder; give the folder under which "
                "the videos' paths lie"
            )
        return config.media_root
    folder = config.build or config.run
    saved = None if folder is None else folder / "config.json"
    if saved is None or not saved.is_file():
        return None
    try:
        options: Any = json.loads(saved.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{saved} should hold the options of that folder, but cannot be read ({error}); "
            "give --ledger and --media-root instead"
        ) from None
    given = options.get("media_root") if isinstance(options, dict) else None
    return Path(given) if isinstance(given, str) and Path(given).is_dir() else None


def _print_sample(
    config: SampleConfig,
    population: "Population",
    items: Sequence["AuditItem"],
    strata: Sequence["Stratum"],
    media_root: Path | None,
) -> None:
    """Counts only: which row had which verdict stays hidden."""
    from cli.console import output_console, plain_table

    console = output_console()
    videos = len({item.video for item in items})
    console.print(
        plain_table(
            ("verdict", "problem type", "data source", "population", "drawn"),
            [
                (
                    cell.source_verdict,
                    cell.problem_type,
                    cell.data_source,
                    f"{cell.population:,}",
                    f"{cell.sampled:,}",
                )
                for cell in strata
            ],
            num_texts=3,
            title=f"{len(items)} of {len(population.rows):,} verdicts, from {videos} videos",
        )
    )
    notes = []
    if len(items) < min(config.size, len(population.rows)):
        notes.append(
            f"{config.size} were asked for: at most {config.max_per_video} from one video "
            "(--max-per-video) and fractions of rows in small strata gave fewer"
        )
    if population.num_not_judged and config.kind == "answer-extraction":
        notes.append(
            f"{population.num_not_judged:,} rows have no reply; the audit does not speak of them"
        )
    elif population.num_not_judged and config.kind == "think-answer":
        notes.append(
            f"{population.num_not_judged:,} rows have no reasoning, or an answer that names no "
            "option; the audit does not speak of them"
        )
    elif population.num_not_judged:
        notes.append(
            f"{population.num_not_judged:,} attempts were out before any judge was asked (they "
            "state the answer); no audit of the judge speaks of them"
        )
    if media_root is None and config.kind == "sufficiency":
        notes.append(
            "the media root is not known here, so label cannot show videos: give --media-root "
            "with another --audit folder, if they lie on this machine"
        )
    console.print("\n".join([*notes, f"audit  {config.audit}"]), soft_wrap=True)
