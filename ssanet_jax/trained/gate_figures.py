"""Draws what gates do: the distribution of each, by depth, and what each is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssanet_jax.analysis.gate_moments import BINS, SATURATED
from ssanet_jax.analysis.gates import GateStatistics
from ssanet_jax.trained.ablation import ALL, KIND_NAMES, Ablation, Kind

# Of Okabe and Ito's colours, which colour-blind readers tell apart.
_GATE, _SATURATED, _INK = '#56b4e9', '#d55e00', '#333333'
_COLORS: dict[Kind, str] = {'one': '#0072b2', 'mean': '#e69f00', 'shuffled': '#009e73'}
_ROW = 0.32  # inches
_RIDGE = 0.84  # height of a distribution, in rows
_SMALL = 8  # points


def draw(
    statistics: Mapping[str, GateStatistics], title: str, ablation: Ablation | None = None
) -> Figure:
    """A row for each gate, the first to be computed on top.

    Left is the distribution of its values, all equally high, with a line at the mean; saturated
    values have another colour, and their share stands beside it. Right is the change in top-1
    without the gate, where `ablation` is given.

    Args:
      statistics: from `gate_statistics`, with histograms of `BINS`.
      title: above the figure.
      ablation: of the same gates.
    """
    names, columns = list(statistics), 1 if ablation is None else 2
    size = (6.4, 10.4)[columns - 1], _ROW * len(names) + (1.2, 1.7)[columns - 1]
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    _ridges(axes[0], list(statistics.values()))
    if ablation is not None:
        _bars(axes[1], names, ablation)
    axes[0].set_yticks(range(len(names)), [_label(*item) for item in statistics.items()])
    for label, gate in zip(axes[0].get_yticklabels(), statistics.values(), strict=True):
        label.set_color(_SATURATED if gate.dead else _INK)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    for ax in axes:
        ax.tick_params(labelsize=_SMALL, left=False)
        ax.spines[['top', 'right', 'left']].set_visible(False)
    figure.suptitle(title, fontsize=10, x=0.01, ha='left')
    return figure


def _label(name: str, gate: GateStatistics) -> str:
    return f'{name} is {gate.dead}' if gate.dead else name


def _ridges(ax: Axes, gates: Sequence[GateStatistics]) -> None:
    tops = {gate.shape.top for gate in gates}
    end = max(tops) if len(tops) == 1 else 1.0  # Of different ranges, shares are drawn.
    edges = np.linspace(0, end, BINS + 1)
    outer = round(SATURATED * BINS)
    for span in (edges[: outer + 1], edges[-outer - 1 :]):
        ax.axvspan(span[0], span[-1], color='0.94', lw=0)
    for row, gate in enumerate(gates):
        if gate.histogram is None or len(gate.histogram) != BINS:
            raise ValueError(f'draw needs histograms; call gate_statistics with bins={BINS}.')
        base = row + _RIDGE / 2
        heights = base - _RIDGE * gate.histogram / gate.histogram.max()
        heights = np.append(heights, heights[-1])
        ax.fill_between(edges, base, heights, step='post', color=_GATE, lw=0)
        for part in (slice(outer + 1), slice(-outer - 1, None)):
            ax.fill_between(
                edges[part], base, _closed(heights[part]), step='post', color=_SATURATED, lw=0
            )
        mean = gate.mean * end / gate.shape.top
        ax.plot([mean, mean], [base, base - _RIDGE], color=_INK, lw=1.2)
        ax.axhline(base, color='0.8', lw=0.5)
        share = f'{100 * (gate.low + gate.high):.1f} %'
        color = '0.6' if share == '0.0 %' else _SATURATED
        ax.text(1.14 * end, base, share, fontsize=_SMALL, color=color, va='bottom', ha='right')
    ax.text(
        1.14 * end, -0.6, 'saturated', fontsize=_SMALL, color=_SATURATED, va='bottom', ha='right'
    )
    ax.set_xlim(0, end)
    name = 'gate' if len(tops) == 1 else 'gate, share of its range'
    ax.set_xlabel(f'{name}; the line is its mean', fontsize=_SMALL)


def _closed(heights: np.ndarray) -> np.ndarray:
    """The same, its last step as high as the one before."""
    return np.append(heights[:-1], heights[-2])


def _bars(ax: Axes, names: Sequence[str], ablation: Ablation) -> None:
    thickness = 0.8 / len(ablation.changes)
    largest = 0.0
    for place, (kind, changes) in enumerate(ablation.changes.items()):
        values = [changes[name].top1 for name in names]
        rows = np.arange(len(names)) - 0.4 + thickness * (place + 0.5)
        label = f'{KIND_NAMES[kind]}; all gates at once: {changes[ALL].top1:+.2f}'
        ax.barh(rows, values, height=0.9 * thickness, color=_COLORS[kind], label=label)
        largest = max([largest, *map(abs, values)])
    ax.axvline(0, color=_INK, lw=0.8)
    for row in range(len(names) - 1):
        ax.axhline(row + 0.5, color='0.9', lw=0.5)
    if largest == 0:
        ax.set_xlim(-1, 1)
    one = 100 / ablation.images
    ax.set_xlabel(f'change in top-1, points; one image is {one:.2g}', fontsize=_SMALL)
    ax.legend(loc='lower left', bbox_to_anchor=(0, 1), frameon=False, fontsize=_SMALL, borderpad=0)
