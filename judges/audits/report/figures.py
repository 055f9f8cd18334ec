"""The report's pictures: values with their intervals. The only file that plots."""

import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from judges.audits.report.agreement_sections import wrong_words
from judges.audits.report.number_format import visible
from judges.audits.report.results import AuditResults, JudgeResults
from judges.statistics.cluster_bootstrap import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 9.0  # inches
_ROW = 0.5
_DOTS_PER_INCH = 110
_MAX_SLICES = 15
_MAX_NAME = 34
_COLORS = ("#1f5fa8", "#b3261e", "#1a7f45", "#8a5a00", "#6a3fa0", "#3a7d8c")


def pictures_of(results: AuditResults) -> dict[str, bytes]:
    """PNG files by the name of the section that they belong to; only those that show something."""
    makers: dict[str, Callable[[AuditResults], Figure | None]] = {
        "judges": _judges,
        "data": _data,
        "slices": _slices,
        "probes": _probes,
    }
    pictures = {}
    for name, make in makers.items():
        figure = make(results)
        if figure is not None:
            buffer = io.BytesIO()
            # "tight" keeps what constrained layout lets stick out: a title wider than its panel.
            figure.savefig(
                buffer,
                format="png",
                dpi=_DOTS_PER_INCH,
                metadata={"Software": None},
                bbox_inches="tight",
            )
            pictures[name] = buffer.getvalue()
    return pictures


def _judges(results: AuditResults) -> "Figure | None":
    """Agreement with the human ceiling, and the three coefficients, of every judge."""
    judges = [judge for judge in results.judges if judge.against_people.num_rows]
    if not judges:
        return None
    figure, (left, right) = _figure(len(judges), 2)
    names = [_name(judge) for judge in judges]
    agreements, labels = [[judge.against_people.agreement for judge in judges]], ["with people"]
    ceiling = results.people.ceiling
    if ceiling is not None and ceiling.num_rows:
        agreements.append([judge.with_one_person for judge in judges])
        labels.append("with one person")
        _band(left, ceiling.agreement, "people among each other")
    _dots(left, names, agreements, labels)
    left.set_title("Agreement with people", loc="left")
    left.set_xlim(min(left.get_xlim()[0], 0.5), 1.005)
    _as_percent(left)
    coefficients = [
        [getattr(judge.against_people, name) for judge in judges]
        for name in ("kappa", "ac1", "alpha")
    ]
    names_of_these = ["Cohen's kappa", "Gwet's AC1", "Krippendorff's alpha"]
    _dots(right, names, coefficients, names_of_these, first_color=2)
    right.set_title("Agreement beyond chance", loc="left")
    right.axvline(0, color="#999999", linewidth=0.8)
    right.set_yticklabels([])
    right.set_xlim(min(right.get_xlim()[0], -0.02), 1.02)
    _legend(figure)
    return figure


def _data(results: AuditResults) -> "Figure | None":
    """Prevalence, naive and corrected; wrong rows among kept and rejected ones."""
    found = results.consequences
    parts = [
        (name, part.wrong)
        for name, part in (
            (wrong_words("yes", results.kind), found.kept),
            (wrong_words("no", results.kind), found.rejected),
            (wrong_words("unscored", results.kind), found.unscored),
        )
        if part.num_labelled
    ]
    if found.prevalence is None or not parts:
        return None
    naive = found.prevalence.naive
    shares = [
        ("as the judge says (naive)", Estimate(naive, naive, naive)),
        ("Rogan-Gladen", found.prevalence.rogan_gladen),
        ("prediction-powered", found.prevalence.prediction_powered),
    ]
    figure, (left, right) = _figure(3, 2)
    for axes, title, rows in (
        (left, f"Share of rows that are {results.kind.yes}", shares),
        (right, "Share that was judged wrongly", parts),
    ):
        _dots(axes, [name for name, _ in rows], [[value for _, value in rows]], [""])
        axes.set_title(title, loc="left")
        _as_percent(axes)
    right.set_xlim(left=0)
    return figure


def _slices(results: AuditResults) -> "Figure | None":
    """The worst slices of the judge that made the data."""
    source = results.judges[0]
    worst = [one for one in results.slices if one.judge == source.name and not one.is_too_few][
        :_MAX_SLICES
    ]
    if not worst:
        return None
    figure, (axes,) = _figure(len(worst), 1)
    names = [f"{one.kind}: {one.value} ({one.num_rows})" for one in worst]
    _dots(axes, names, [[one.agreement for one in worst]], ["this slice"])
    axes.set_title(_folded(f"By slice: {source.name}", 70), loc="left", fontsize="medium")
    _band(axes, source.against_people.agreement, "all rows")
    _as_percent(axes)
    _legend(figure)
    return figure


def _probes(results: AuditResults) -> "Figure | None":
    """Share of leak probes that each judge lets through."""
    if not results.probes:
        return None
    kinds = list(dict.fromkeys(probe.probe for probe in results.probes))
    judges = list(dict.fromkeys(probe.judge for probe in results.probes))
    passed = {(probe.judge, probe.probe): probe.passed for probe in results.probes}
    nothing = Estimate(math.nan, math.nan, math.nan)
    figure, (axes,) = _figure(max(len(kinds), len(kinds) * len(judges) // 2), 1)
    _dots(
        axes,
        kinds,
        [[passed.get((judge, kind), nothing) for kind in kinds] for judge in judges],
        [_plain(judge) for judge in judges],
    )
    axes.set_title("Leak probes let through: every one is a mistake", loc="left")
    axes.set_xlim(left=-0.01)
    _as_percent(axes)
    _legend(figure)
    return figure


def _figure(num_rows: int, num_panels: int) -> "tuple[Figure, Sequence[Axes]]":
    from matplotlib.figure import Figure

    height = 1.5 + _ROW * max(num_rows, 2)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = figure.subplots(1, num_panels, squeeze=False)[0]
    return figure, panels


def _dots(
    axes: "Axes",
    names: Sequence[str],
    series: Sequence[Sequence[Estimate]],
    labels: Sequence[str],
    *,
    first_color: int = 0,
) -> None:
    """One row per name, one dot with its interval per series; rows run from top to bottom."""
    for place, (values, label) in enumerate(zip(series, labels, strict=True)):
        offset = (place - (len(series) - 1) / 2) * min(0.22, 0.7 / len(series))
        shown = [(row + offset, one) for row, one in enumerate(values) if not math.isnan(one.value)]
        if not shown:
            continue
        reach = [
            [0.0 if math.isnan(one.low) else one.value - one.low for _, one in shown],
            [0.0 if math.isnan(one.high) else one.high - one.value for _, one in shown],
        ]
        axes.errorbar(
            [one.value for _, one in shown],
            [row for row, _ in shown],
            xerr=reach,
            fmt="o",
            markersize=4.5,
            linewidth=1.6,
            capsize=2.5,
            color=_COLORS[(place + first_color) % len(_COLORS)],
            label=label,
        )
    axes.set_yticks(range(len(names)), [_folded(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _band(axes: "Axes", estimate: Estimate, label: str) -> None:
    if not math.isnan(estimate.low):
        axes.axvspan(estimate.low, estimate.high, color="#8a8f98", alpha=0.18, linewidth=0)
    axes.axvline(estimate.value, color="#5b6570", linewidth=1.2, linestyle="--", label=label)


def _legend(figure: "Figure") -> None:
    """Below all panels; long names one below the other."""
    longest = max((len(text) for axes in figure.axes for text in _legend_texts(axes)), default=0)
    figure.legend(
        loc="outside lower left", ncols=1 if longest > _MAX_NAME else 3, frameon=False,
        fontsize="small", handlelength=1.4, columnspacing=1.4,
    )  # fmt: skip


def _legend_texts(axes: "Axes") -> list[str]:
    texts: list[str] = axes.get_legend_handles_labels()[1]
    return texts


def _as_percent(axes: "Axes") -> None:
    from matplotlib.ticker import PercentFormatter

    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def _name(judge: JudgeResults) -> str:
    return f"{judge.name}{' *' if judge.is_too_few else ''}"


def _folded(name: str, width: int = _MAX_NAME) -> str:
    """At most three lines."""
    lines = textwrap.wrap(
        re.sub(r",(?=\S)", ", ", _plain(name)), width, max_lines=3, placeholder=" …"
    )
    return "\n".join(lines)


def _plain(name: str) -> str:
    # A dollar sign would begin a formula.
    return visible(name).replace("$", r"\$")
