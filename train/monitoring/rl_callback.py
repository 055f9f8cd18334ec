"""Reports of a run's steps: metrics in TRL's log and `metrics.jsonl`, pages of rollouts."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.algorithms.appo import AppoConfig
from train.algorithms.token_weighting import TokenWeighting
from train.data.model_inputs import VideoInputs
from train.monitoring.completions_table import Table, completions_table, log_completions
from train.monitoring.rl_report import METRICS_FILE
from train.monitoring.rollout_index import page_name, write_rollout_index
from train.monitoring.rollout_page import write_rollout_page
from train.monitoring.rollout_records import write_rollout_records
from train.monitoring.step_metrics import MetricsFile, step_metrics
from train.rollouts.segments import TokenBytes
from train.rollouts.types import ScoredGroup
from train.trainers.distributed import is_first_process
from train.trainers.step_report import StepReport
from train.trainers.trl_imports import TrainerCallback

_log = logging.getLogger(__name__)


class MissingRewards:
    """Warns, once for each reward of --reward, where a step has no value of it at all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._unnoted = list(names)

    def warn(self, metrics: Mapping[str, float]) -> None:
        """Log the rewards that the metrics of a step lack."""
        for name in [each for each in self._unnoted if f"rewards/{each}" not in metrics]:
            self._unnoted.remove(name)
            _log.warning(
                "the reward %s is missing for every rollout of a step, so none of them learns from"
                " its segment; metrics.jsonl has no rewards/%s there",
                name,
                name,
            )


class RunReports(TrainerCallback):  # type: ignore[misc]
    """Measures the steps of a trainer (`observe`) and, as its callback, writes what it logs.

    `last_step` is the step of the checkpoint that the run resumes from. Every `pages_every` steps
    the first process writes `pages/step-N.html` and `rollouts/step-N.jsonl`, of its own groups.
    """

    def __init__(
        self,
        folder: Path,
        *,
        inputs: VideoInputs,
        weighting: TokenWeighting | None,
        reward_names: Sequence[str],
        last_step: int,
        pages_every: int,
        page_groups: int,
    ) -> None:
        self._folder, self._inputs, self._weighting = folder, inputs, weighting
        self._reward_names = tuple(reward_names)
        self._pages_every, self._page_groups = pages_every, page_groups
        self._token_bytes = TokenBytes(inputs.tokenizer)
        self._has_warned = False
        self._table: Table | None = None
        self._missing = MissingRewards(reward_names)
        self._metrics = None
        if is_first_process():
            self._metrics = MetricsFile(folder / METRICS_FILE, last_step=last_step)

    def observe(self, report: StepReport) -> Mapping[str, float]:
        """The step's metrics, over all processes; and its page, where one is due."""
        cell_seconds = None
        if self._weighting is not None:
            if "frame_attention" in self._weighting.needs:
                cell_seconds = [
                    self._inputs.cell_seconds(scored.group.question) for scored in report.groups
                ]
            self._warn(self._weighting, report.groups)
        metrics = step_metrics(
            report.groups,
            template=self._inputs.template,
            judge=report.judge,
            cell_seconds=cell_seconds,
            weighting=self._weighting,
            reward_names=self._reward_names,
            seconds=report.seconds,
            gather=report.gather,
        )
        if is_first_process():
            self._missing.warn(metrics)
        if self._pages_every and report.step % self._pages_every == 0 and is_first_process():
            self._write_page(report)
            shown = report.groups[: self._page_groups]
            self._table = completions_table(shown, step=report.step)
        return metrics

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Called by TRL with each log; the summary at the end of training is not a step."""
        logs: Mapping[str, Any] = given.get("logs") or {}
        if self._metrics is None or "loss" not in logs:
            return
        values = {name: math.nan if value is None else float(value) for name, value in logs.items()}
        self._metrics.append(state.global_step, values)
        if self._table is not None:
            log_completions(args.report_to, self._table)
            self._table = None
        if (self._folder / "pages" / page_name(state.global_step)).exists():
            write_rollout_index(self._folder)

    def _write_page(self, report: StepReport) -> None:
        groups = report.groups[: self._page_groups]
        name = f"step-{report.step:06d}"
        seconds = [self._inputs.cell_seconds(scored.group.question) for scored in groups]
        write_rollout_records(
            self._folder / "rollouts" / f"{name}.jsonl",
            groups,
            seconds,
            step=report.step,
            config=self._page_config,
        )
        page = self._folder / "pages" / page_name(report.step)
        page.parent.mkdir(exist_ok=True)
        write_rollout_page(
            page,
            groups,
            step=report.step,
            loader=self._inputs.loader,
            cell_seconds=self._inputs.cell_seconds,
            token_bytes=self._token_bytes,
            config=self._page_config,
        )

    @property
    def _page_config(self) -> AppoConfig | None:
        return None if self._weighting is None else self._weighting.page_config

    def _warn(self, weighting: TokenWeighting, groups: Sequence[ScoredGroup]) -> None:
        """Log the weighting's warning, once in a run."""
        if self._has_warned or (warning := weighting.warning(groups)) is None:
            return
        self._has_warned = True
        _log.warning("%s", warning)
