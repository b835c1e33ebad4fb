"""The charts of a report: SVG that follows the reader's light or dark scheme, as data URIs."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ssanet_jax.analysis.calibration import Reliability
from ssanet_jax.analysis.gates import GateStatistics
from ssanet_jax.report.curves import Curves, Published, Series

# Of Okabe and Ito's palette, which colour-blind readers tell apart, and its lighter tones for dark
# paper. A chart is drawn in the first colours; its style sheet says what they become.
_TRAIN, _EVALUATION, _INK, _GRID = '#0072b2', '#d55e00', '#333333', '#dddddd'
_DARK = {_TRAIN: '#56b4e9', _EVALUATION: '#f0894a', _INK: '#d0d0d0', _GRID: '#444444'}
_SIZE = (3.75, 3.0)  # inches, at 96 pixels: what a phone shows without shrinking
_STYLE: Any = {
    'svg.fonttype': 'none',  # text stays text, in the reader's font
    'svg.hashsalt': 'ssanet_jax',  # the same chart is the same file
    'font.size': 8.0,
    'axes.edgecolor': _GRID,
    'axes.labelcolor': _INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': _GRID,
    'grid.linewidth': 0.6,
    'xtick.color': _GRID,
    'ytick.color': _GRID,
    'xtick.labelcolor': _INK,
    'ytick.labelcolor': _INK,
    'text.color': _INK,
    'legend.frameon': False,
    'legend.handlelength': 1.8,
    'text.parse_math': False,
}


def _chart(title: str, draw: Callable[[Axes], None]) -> str:
    """What `draw` draws on axes, with a legend below where there is more than one thing in it."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout='constrained')
        FigureCanvasSVG(figure)
        ax = figure.add_subplot()
        ax.set_title(title, loc='left', fontsize=9)
        draw(ax)
        if len(ax.get_legend_handles_labels()[0]) > 1:
            figure.legend(loc='outside lower center', ncols=2, fontsize=8)
        file = io.BytesIO()
        figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    return _uri(file.getvalue().decode())


def _uri(svg: str) -> str:
    rules = ''.join(f'--c{colour[1:]}:{colour};' for colour in _DARK)
    dark = ''.join(f'--c{colour[1:]}:{instead};' for colour, instead in _DARK.items())
    for colour in _DARK:
        svg = svg.replace(colour, f'var(--c{colour[1:]})')
    style = (
        f'<style>:root{{{rules}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}'
        'text{font-family:system-ui,sans-serif!important}</style>'
    )
    head, tag, rest = svg.partition('<defs>')
    svg = f'{head}{style}{tag}{rest}'
    return f'data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}'


def curve_charts(
    curves: Curves, reference: Published | None, *, decays_in_steps: bool = False
) -> dict[str, str]:
    """{'loss': data URI, 'top1': ..., 'learning_rate': ...}: those that there is anything for.

    Args:
      curves: of the run.
      reference: is drawn dashed, where the curves are by epochs.
      decays_in_steps: whether the learning rate does, each to a share of itself.
    """
    titles = {'loss': 'Loss (nats)', 'top1': 'Top-1 (%)', 'learning_rate': 'Learning rate'}
    made = {}
    for name, title in titles.items():
        if any(np.isfinite(s.get(name, [])).any() for s in (curves.train, curves.evaluation)):
            logarithmic = decays_in_steps if name == 'learning_rate' else name == 'loss'
            draw = partial(_draw_curves, name, logarithmic, curves, reference)
            made[name] = _chart(title, draw)
    return made


def _draw_curves(
    name: str, logarithmic: bool, curves: Curves, reference: Published | None, ax: Axes
) -> None:
    ours = {'training': curves.train, 'evaluation': curves.evaluation}
    for (label, series), colour in zip(ours.items(), (_TRAIN, _EVALUATION), strict=True):
        _line(ax, series, name, color=colour, label=label, linewidth=1.3)
    if reference and curves.unit == 'epoch':
        style = {'linewidth': 0.9, 'linestyle': (0, (3, 2)), 'alpha': 0.85}
        theirs = {'training': reference.train, 'evaluation': reference.evaluation}
        for (label, series), colour in zip(theirs.items(), (_TRAIN, _EVALUATION), strict=True):
            _line(ax, series, name, color=colour, label=f'{label}, published', **style)
    shown = np.concatenate([np.asarray(line.get_ydata()) for line in ax.get_lines()])
    if name == 'top1':
        ax.set_ylim(_lowest(ax), 100)
    elif logarithmic and (shown > 0).any():
        _logarithmic(ax, shown[shown > 0])
    ax.set_xlim(left=0)
    ax.set_xlabel(curves.unit)


def _line(ax: Axes, series: Series, name: str, **style: Any) -> None:
    if name in series and np.isfinite(series[name]).any():
        marker = '' if len(series['x']) > 1 else '.'
        ax.plot(series['x'], series[name], marker=marker, **style)


def _lowest(ax: Axes) -> float:
    """Of what the lines have after the first tenth of the axis, rounded down to tens."""
    lines = [np.asarray(line.get_xydata()) for line in ax.get_lines()]
    begin = 0.1 * max(xy[:, 0].max() for xy in lines)
    late = np.concatenate([xy[xy[:, 0] >= begin, 1] for xy in lines])
    lowest = np.nanmin(late) if np.isfinite(late).any() else 0.0
    return float(min(10 * math.floor(lowest / 10), 90))


def _logarithmic(ax: Axes, values: np.ndarray) -> None:
    ax.set_yscale('log')
    decades = math.log10(values.max() / values.min())
    steps = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=8))
    ax.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def reliability_chart(before: Reliability, after: Reliability) -> str:
    """How often the network is right, by how sure it is, as it is and with a fitted temperature."""
    return _chart('Share of right predictions', partial(_draw_reliability, before, after))


def _draw_reliability(before: Reliability, after: Reliability, ax: Axes) -> None:
    width, share = 1 / len(before.images), before.images / before.images.sum()
    middles = before.edges[:-1] + width / 2
    ax.bar(middles, share, 0.9 * width, color=_INK, alpha=0.25, lw=0, label='share of images')
    for found, style, label in (
        (before, {'color': _TRAIN, 'marker': 'o'}, 'as trained'),
        (after, {'color': _EVALUATION, 'marker': 's'}, 'with temperature'),
    ):
        there = found.images > 0
        line = ax.plot(found.confidence[there], found.accuracy[there], ms=3.5, lw=1, label=label)
        line[0].set(**style)
    ax.plot([0, 1], [0, 1], color=_INK, lw=0.8, ls=(0, (2, 2)), label='ideal')
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel='probability of the prediction')


def gates_chart(gates: Mapping[str, GateStatistics]) -> str:
    """Means of gates from the first block to the last, with bars of one standard deviation."""
    return _chart('Gate, mean and standard deviation', partial(_draw_gates, gates))


def _draw_gates(gates: Mapping[str, GateStatistics], ax: Axes) -> None:
    x, every = np.arange(len(gates)), math.ceil(len(gates) / 20)
    mean, std = (np.array([getattr(g, name) for g in gates.values()]) for name in ('mean', 'std'))
    ax.errorbar(x, mean, yerr=std, color=_TRAIN, lw=0.8, elinewidth=1, capsize=2, fmt='o-', ms=3.5)
    ax.set_ylim(0, 1.02 * max(gate.shape.top for gate in gates.values()))
    ax.set_xticks(x[::every], _labels(list(gates))[::every], rotation=90 if len(x) > 6 else 0)
    ax.grid(axis='x', visible=False)


def _labels(names: Sequence[str]) -> list[str]:
    """Without the name of the attention, where all have the same: 'layer1_0' of 'layer1_0/ssa'."""
    if len({name.rpartition('/')[2] for name in names}) > 1:
        return list(names)
    return [name.rpartition('/')[0] or name for name in names]
