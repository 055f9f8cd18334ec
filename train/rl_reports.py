"""What a run tells of its steps: metrics to TRL's log and `metrics.jsonl`, pages of rollouts."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from train.appo import AppoConfig
from train.diagnostics import step_metrics
from train.metrics_file import MetricsFile
from train.micro_batches import StepReport
from train.processes import is_first_process
from train.rollout_groups import ScoredGroup
from train.rollout_page import write_rollout_page
from train.rollout_records import write_rollout_records
from train.segments import TokenBytes
from train.trl_library import TrainerCallback
from train.video_inputs import VideoInputs

_log = logging.getLogger(__name__)


class RunReports(TrainerCallback):  # type: ignore[misc]
    """Observes the steps of a trainer (`observe`) and keeps what it logs, as its callback.

    `last_step` is that of the checkpoint that the run goes on from. Every `pages_every` steps the
    first process writes `pages/step-N.html` and `rollouts/step-N.jsonl`, of its own groups.
    """

    def __init__(
        self,
        folder: Path,
        *,
        inputs: VideoInputs,
        appo: AppoConfig | None,
        last_step: int,
        pages_every: int,
        page_groups: int,
    ) -> None:
        self._folder, self._inputs, self._appo = folder, inputs, appo
        self._pages_every, self._page_groups = pages_every, page_groups
        self._token_bytes = TokenBytes(inputs.tokenizer)
        self._has_warned = False
        self._metrics = None
        if is_first_process():
            self._metrics = MetricsFile(folder / "metrics.jsonl", last_step=last_step)

    def observe(self, report: StepReport) -> Mapping[str, float]:
        """The step's metrics, over all processes; and its page, where one is due."""
        cell_seconds = None
        if self._appo is not None:
            cell_seconds = [
                self._inputs.cell_seconds(scored.group.question) for scored in report.groups
            ]
            self._warn_of_short_completions(report.groups, self._appo)
        metrics = step_metrics(
            report.groups,
            template=self._inputs.template,
            judge=report.judge,
            cell_seconds=cell_seconds,
            appo=self._appo,
            seconds=report.seconds,
            gather=report.gather,
        )
        if self._pages_every and report.step % self._pages_every == 0 and is_first_process():
            self._write_page(report)
        return metrics

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Called with what TRL logs; the summary at the end of training is no step."""
        logs: Mapping[str, Any] = given.get("logs") or {}
        if self._metrics is None or "loss" not in logs:
            return
        values = {name: math.nan if value is None else float(value) for name, value in logs.items()}
        self._metrics.append(state.global_step, values)

    def _write_page(self, report: StepReport) -> None:
        groups = report.groups[: self._page_groups]
        name = f"step-{report.step:06d}"
        seconds = [self._inputs.cell_seconds(scored.group.question) for scored in groups]
        write_rollout_records(
            self._folder / "rollouts" / f"{name}.jsonl",
            groups,
            seconds,
            step=report.step,
            config=self._appo,
        )
        page = self._folder / "pages" / f"{name}.html"
        page.parent.mkdir(exist_ok=True)
        write_rollout_page(
            page,
            groups,
            step=report.step,
            loader=self._inputs.loader,
            cell_seconds=self._inputs.cell_seconds,
            token_bytes=self._token_bytes,
            config=self._appo,
        )

    def _warn_of_short_completions(self, groups: Sequence[ScoredGroup], appo: AppoConfig) -> None:
        lengths = [len(one.token_ids) for scored in groups for one in scored.group.rollouts]
        if self._has_warned or not lengths or appo.tokens_per_frame < median(lengths):
            return
        self._has_warned = True
        _log.warning(
            "--appo-tokens-per-frame %d is no less than the median completion of %g tokens: every"
            " token then follows every frame, and attention cannot matter; a quarter of the length"
            " is a start",
            appo.tokens_per_frame,
            median(lengths),
        )
