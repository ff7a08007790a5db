"""Draws the plots of a run as SVG: the same figures give the same bytes.

`python -m bench --read FIGURES.json --plots FOLDER` draws those of an earlier run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bench.report import PLOTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.report import Sheet

_AXES: Final = {
    "latency": ("of 100 puts, so many are as fast as this or faster", "microseconds"),
    "threads": ("threads", "durable commits a second"),
    "sizes": ("entries in the store", "microseconds of a put, median"),
}
_PERCENTILE_TICKS: Final = (0, 50, 90, 99, 99.9)
_OURS: Final = "sqlstate"
_COLOURS: Final = 10


def check() -> None:
    """Raise ImportError if matplotlib is not installed."""
    import_module("matplotlib.figure")


def draw(sheets: Sequence[Sheet], folder: Path) -> list[Path]:
    """Draw every sheet that has a plot; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for sheet in sheets:
        if sheet.name in PLOTS and sheet.curves:
            file = folder / f"{sheet.name}.svg"
            _draw(sheet, file)
            drawn.append(file)
    return drawn


def _draw(sheet: Sheet, file: Path) -> None:
    matplotlib: Any = import_module("matplotlib")
    figures: Any = import_module("matplotlib.figure")
    style = {"svg.hashsalt": "sqlstate", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    with matplotlib.rc_context(style):
        figure = figures.Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(sheet.curves.items()):
            ours = name.startswith(_OURS)
            kind = "-" if ours else "--" if number < _COLOURS else ":"  # colours begin again after ten
            width, order = (2.4, 3) if ours else (1.2, 2)
            shown = [(_place(sheet.name, x), y) for x, y in points]
            marker = "" if sheet.name == "latency" else "o"
            axes.plot(
                *zip(*shown, strict=True), kind, linewidth=width, zorder=order, label=name, marker=marker, markersize=3
            )
        _scales(axes, sheet)
        axes.set_title(PLOTS[sheet.name], loc="left")
        axes.grid(visible=True, alpha=0.3)
        # Fastest first, as on the right side of the plot.
        handles, labels = axes.get_legend_handles_labels()
        last = [sheet.curves[label][-1][1] for label in labels]
        order_of = sorted(range(len(labels)), key=lambda at: -last[at])
        axes.legend(
            [handles[at] for at in order_of], [labels[at] for at in order_of],
            loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8,
        )  # fmt: skip
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def _scales(axes: Any, sheet: Sheet) -> None:
    across, up = _AXES[sheet.name]
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_yscale("log")
    if sheet.name == "latency":
        axes.set_xticks(
            [_place("latency", tick) for tick in _PERCENTILE_TICKS], [f"{tick:g}" for tick in _PERCENTILE_TICKS]
        )
        return
    places = sorted({x for points in sheet.curves.values() for x, _ in points})
    axes.set_xscale("log", base=2 if sheet.name == "threads" else 10)
    axes.set_xticks(places, [f"{place:,.0f}" for place in places])
    axes.minorticks_off()


def _place(name: str, x: float) -> float:
    """Return where a point stands: percentiles so that each further nine takes as much room as the one before."""
    if name != "latency":
        return x
    return float(import_module("math").log10(100 / (100 - min(x, 99.99))))
