"""The results of a run as pictures: a figure for each family, a panel for each workload, a bar for each peer."""

from __future__ import annotations

from pathlib import Path

from harness import Figures, Peer
from report import ALSO_OURS, OURS, RESULTS, rate
from workloads import WORKLOADS, Workload

OUR_COLOUR, THEIR_COLOUR = "#c0392b", "#8fa3b0"
COLUMNS = 3


def write(folder: Path) -> None:
    """tcp.png, tls.png, http.png, of what was measured."""
    try:
        import matplotlib
    except ImportError:
        print("no plots: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    families: dict[str, list[Workload]] = {}
    for name in RESULTS:
        families.setdefault(WORKLOADS[name].family, []).append(WORKLOADS[name])
    for family, workloads in families.items():
        draw(family, workloads, folder / f"{family.lower()}.png")


def draw(family: str, workloads: list[Workload], path: Path) -> None:
    from matplotlib import pyplot

    rows = -(-len(workloads) // COLUMNS)
    most = max(len(RESULTS[workload.name]) for workload in workloads)
    size = (6 * COLUMNS, rows * (0.9 + 0.22 * most))
    figure, panels = pyplot.subplots(rows, COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for panel in panels.flat[len(workloads) :]:
        panel.set_visible(False)
    for panel, workload in zip(panels.flat, workloads, strict=False):
        ordered = sorted(RESULTS[workload.name].items(), key=lambda item: value(workload, item[1]))
        if workload.unit == "memory":
            ordered.reverse()
        values = [value(workload, figures) for _, figures in ordered]
        bars = panel.barh(
            [str(peer) for peer, _ in ordered], values, color=[colour(peer) for peer, _ in ordered],
            xerr=[*zip(*(errors(workload, figures) for _, figures in ordered), strict=True)],
            error_kw={"elinewidth": 0.8},
        )  # fmt: skip
        panel.bar_label(bars, [f" {label(workload, figures)}" for _, figures in ordered], fontsize=7)
        panel.set_title(f"{workload.name}: {workload.words}", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.set_xticks([])
        panel.margins(x=0.25)
        for side in ("top", "right", "bottom"):
            panel.spines[side].set_visible(False)
    figure.suptitle(
        f"{family}: higher is better, except for memory; medians, bars of error from slowest to fastest round"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def value(workload: Workload, figures: Figures) -> float:
    return (figures.bytes_per_operation or 0.0) if workload.unit == "memory" else figures.rate


def errors(workload: Workload, figures: Figures) -> tuple[float, float]:
    """From the median to the slowest round, and to the fastest."""
    if workload.unit == "memory":
        return 0.0, 0.0
    return figures.rate - min(figures.rates), max(figures.rates) - figures.rate


def label(workload: Workload, figures: Figures) -> str:
    return f"{figures.bytes_per_operation:,.0f} B" if workload.unit == "memory" else rate(workload, figures)


def colour(peer: Peer) -> str:
    return OUR_COLOUR if peer.name in (*OURS, *ALSO_OURS) else THEIR_COLOUR
