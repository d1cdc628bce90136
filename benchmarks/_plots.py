"""Plots of the benchmarks: one message each, baselines grey, this package in one colour.

Drawn without a display, 1,400 pixels wide, so that they stay sharp when shown at half of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS, BASELINE, TEXT, GRID = "#0b7a75", "#b4b8bc", "#22262a", "#e6e8ea"
_WIDTH_IN, _DPI = 7.0, 200
_BAR_IN, _GAP_IN = 0.3, 0.16


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label, its value, and whether it is this package's."""

    label: str
    value: float
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line over the x values of its plot; missing values are left out."""

    label: str
    points: Sequence[tuple[float, float]]
    is_ours: bool = False
    is_dashed: bool = False


def bars(
    path: Path, title: str, groups: Sequence[tuple[str, Sequence[Bar]]], unit: str, digits: int = 0
) -> None:
    """Write horizontal bars in named groups, each with its value behind it."""
    num_bars = sum(len(group) for _, group in groups)
    num_titles = sum(bool(name) for name, _ in groups)
    height_in = 0.9 + num_bars * _BAR_IN + num_titles * 0.26 + len(groups) * _GAP_IN
    largest = max(bar.value for _, group in groups for bar in group)
    with _figure(path, title, height_in) as axes:
        y = 0.0
        for name, group in groups:
            if name:
                axes.text(0, y, name, ha="left", va="center", weight="bold", color=TEXT)
                y += 0.9
            for bar in group:
                axes.barh(y, bar.value, height=0.82, color=OURS if bar.is_ours else BASELINE)
                _label(axes, bar, y, largest, f"{bar.value:,.{digits}f} {unit}")
                y += 1
            y += 0.55
        axes.set_ylim(y - 1, -0.7)
        axes.set_xlim(0, largest * 1.02)
        axes.axis("off")


def lines(
    path: Path,
    title: str,
    axis_labels: tuple[str, str],
    series: Sequence[Line],
    *,
    ticks: Sequence[float] | None = None,
    log_x: bool = False,
) -> None:
    """Write lines, each named at its end."""
    with _figure(path, title, 3.9) as axes:
        for line in series:
            xs, ys = zip(*line.points, strict=True)
            color = OURS if line.is_ours else BASELINE
            style = {"linestyle": "--"} if line.is_dashed else {}
            marker = "o" if len(xs) < 20 else None
            axes.plot(xs, ys, color=color, linewidth=2.4, marker=marker, markersize=5, **style)
        _name_lines(axes, series)
        if log_x:
            axes.set_xscale("log", base=2)
        if ticks is not None:
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(axis_labels[0], color=TEXT)
        axes.set_ylabel(axis_labels[1], color=TEXT)
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, colors=TEXT)


def _label(axes: Any, bar: Bar, y: float, largest: float, value: str) -> None:
    """Name before the bar's value: inside where both fit, else the value behind the bar."""
    axes.text(-0.012 * largest, y, bar.label, ha="right", va="center", color=TEXT, clip_on=False)
    is_wide = bar.value > 0.3 * largest
    axes.text(
        bar.value - 0.012 * largest if is_wide else bar.value + 0.012 * largest,
        y,
        value,
        ha="right" if is_wide else "left",
        va="center",
        weight="bold",
        color="white" if is_wide and bar.is_ours else TEXT,
    )


def _name_lines(axes: Any, series: Sequence[Line]) -> None:
    """Names stand at the lines' ends, moved apart where they would overlap."""
    top = max(y for line in series for _, y in line.points)
    place = -1.0
    for line in sorted(series, key=lambda line: line.points[-1][1]):
        x, y = line.points[-1]
        place = max(y, place + 0.065 * top)
        axes.annotate(
            line.label,
            (x, place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=OURS if line.is_ours else "#7b8086",
            weight="bold" if line.is_ours else "normal",
            annotation_clip=False,
        )


@contextmanager
def _figure(path: Path, title: str, height_in: float) -> Iterator[Any]:
    """Axes of a new figure, which is written to `path` in the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": 9.5, "font.family": "DejaVu Sans"}):
        figure, axes = pyplot.subplots(figsize=(_WIDTH_IN, height_in), dpi=_DPI)
        yield axes
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.5 / height_in))
        figure.text(0.02, 1 - 0.16 / height_in, title, ha="left", va="top", size=12, weight="bold")
        # Cropped to what is drawn: names beside the axes decide how wide that is.
        figure.savefig(path, bbox_inches="tight", pad_inches=0.12, facecolor="white")
        pyplot.close(figure)
