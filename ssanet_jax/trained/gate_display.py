"""Tables and figures of gate statistics and ablations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssanet_jax.analysis.gate_moments import BINS, SATURATED
from ssanet_jax.analysis.gates import GateShape, GateStatistics
from ssanet_jax.tables import Column, Table
from ssanet_jax.trained.ablation import ALL, KIND_NAMES, Ablation, Kind

# From Okabe and Ito's palette, which colorblind readers can distinguish.
_GATE, _SATURATED, _INK = '#56b4e9', '#d55e00', '#333333'
_COLORS: dict[Kind, str] = {'one': '#0072b2', 'mean': '#e69f00', 'shuffled': '#009e73'}
_ROW = 0.32  # inches
_RIDGE = 0.84  # height of a distribution, in rows
_SMALL = 8  # points


def _percent(share: float) -> str:
    return f'{100 * share:.1f} %'


_NUMBERS: dict[str, tuple[str, Callable[[Any], str]]] = {  # fields of GateStatistics
    'mean': ('mean', '{:.3f}'.format),
    'std': ('std', '{:.3f}'.format),
    'spatial_std': ('std within images', '{:.3f}'.format),
    'image_std': ('std between images', '{:.3f}'.format),
    'low': ('low', _percent),
    'high': ('high', _percent),
    'entropy': ('entropy', '{:.4f}'.format),
}


def statistics_table(statistics: Mapping[str, GateStatistics], title: str) -> Table:
    """One row per gate; `GateStatistics` explains the columns."""
    numbers = [Column(*heading) for heading in _NUMBERS.values()]
    columns = [Column('gate', left=True), Column('size', left=True), *numbers]
    rows = [
        (name, _size(gate.shape), *(getattr(gate, field) for field in _NUMBERS), gate.dead)
        for name, gate in statistics.items()
    ]
    return Table(title, [*columns, Column('dead', left=True)], rows)


def _size(shape: GateShape) -> str:
    """'8 x 8', '8 x 8, 4 maps' or '64 channels'."""
    if shape.height * shape.width == 1:
        return f'{shape.maps} channels' if shape.maps > 1 else '1 x 1'
    maps = f', {shape.maps} maps' if shape.maps > 1 else ''
    return f'{shape.height} x {shape.width}{maps}'


def ablation_table(ablation: Ablation) -> Table:
    """A row for all gates at once, then one per gate; `ablate` explains the columns."""
    columns = [Column('gate', left=True)]
    for kind in ablation.changes:
        columns += [
            Column(f'top-1, {KIND_NAMES[kind]}', '{:+.2f}'.format),
            Column(f'loss, {KIND_NAMES[kind]}', '{:+.4f}'.format),
        ]
    names = list(next(iter(ablation.changes.values())))
    rows = [
        (name, *(value for changes in ablation.changes.values() for value in changes[name]))
        for name in names
    ]
    title = (
        f'Change from top-1 {ablation.top1:.2f} %, in percentage points, and from loss '
        f'{ablation.loss:.4f}'
    )
    return Table(title, columns, rows, [f'One image is {100 / ablation.images:.2g} points.'])


def draw_gates(
    statistics: Mapping[str, GateStatistics], title: str, ablation: Ablation | None = None
) -> Figure:
    """One row per gate, in the order of computation.

    On the left is the distribution of its values, scaled to equal height, with a line at the mean;
    saturated values have a different color, and their share is printed next to it. On the right is
    the change in top-1 without the gate, if `ablation` is given.

    Args:
      statistics: from `gate_statistics`, with `BINS` bins.
      title: of the figure.
      ablation: of the same gates.

    Raises:
      ValueError: the statistics have no histograms of `BINS` bins.
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
    end = max(tops) if len(tops) == 1 else 1.0  # Different ranges are drawn as shares.
    edges = np.linspace(0, end, BINS + 1)
    outer = round(SATURATED * BINS)
    for span in (edges[: outer + 1], edges[-outer - 1 :]):
        ax.axvspan(span[0], span[-1], color='0.94', lw=0)
    for row, gate in enumerate(gates):
        if gate.histogram is None or len(gate.histogram) != BINS:
            raise ValueError(f'draw_gates needs histograms: call gate_statistics with bins={BINS}.')
        base = row + _RIDGE / 2
        heights = base - _RIDGE * gate.histogram / gate.histogram.max()
        heights = np.append(heights, heights[-1])
        ax.fill_between(edges, base, heights, step='post', color=_GATE, lw=0)
        for part in (slice(outer + 1), slice(-outer - 1, None)):
            ax.fill_between(
                edges[part], base, _close(heights[part]), step='post', color=_SATURATED, lw=0
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
    ax.set_xlabel(f'{name}; the line marks the mean', fontsize=_SMALL)


def _close(heights: np.ndarray) -> np.ndarray:
    """Repeats the last step, so that the fill ends at its right edge."""
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
