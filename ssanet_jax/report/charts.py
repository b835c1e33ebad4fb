"""Charts of runs, as SVG that follows the reader's light or dark color scheme."""

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
from ssanet_jax.report.curves import Curves, PublishedCurves, Series

# Okabe and Ito's palette, which colorblind readers can distinguish, and lighter tones for dark
# mode. Charts are drawn in the light colors, which their style sheets replace in dark mode.
BLUE, ORANGE, INK, GRID = '#0072b2', '#d55e00', '#333333', '#dddddd'
_DARK = {BLUE: '#56b4e9', ORANGE: '#f0894a', INK: '#d0d0d0', GRID: '#444444'}
WIDTH, HEIGHT = 3.75, 3.0  # inches at 96 dpi; fits a phone without scaling
_STYLE: Any = {
    'svg.fonttype': 'none',  # text stays text
    'svg.hashsalt': 'ssanet_jax',  # reproducible files
    'font.size': 8.0,
    'axes.edgecolor': GRID,
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': GRID,
    'grid.linewidth': 0.6,
    'xtick.color': GRID,
    'ytick.color': GRID,
    'xtick.labelcolor': INK,
    'ytick.labelcolor': INK,
    'text.color': INK,
    'legend.frameon': False,
    'legend.handlelength': 1.8,
    'text.parse_math': False,
}


def draw_svg(draw: Callable[[Figure], None], height: float = HEIGHT, width: float = WIDTH) -> str:
    """Renders what `draw` adds to a figure, in colors of the palette only.

    Args:
      draw: adds axes to a figure of `width` x `height` inches.
      height, width: in inches.

    Returns:
      The text of an SVG file.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout='constrained')
        FigureCanvasSVG(figure)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    return _follow_color_scheme(file.getvalue().decode())


def _follow_color_scheme(svg: str) -> str:
    rules = ''.join(f'--c{color[1:]}:{color};' for color in _DARK)
    dark = ''.join(f'--c{color[1:]}:{instead};' for color, instead in _DARK.items())
    for color in _DARK:
        svg = svg.replace(color, f'var(--c{color[1:]})')
    style = (
        f'<style>:root{{{rules}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}'
        'text{font-family:system-ui,sans-serif!important}</style>'
    )
    head, tag, rest = svg.partition('<defs>')
    return f'{head}{style}{tag}{rest}'


def data_uri(svg: str) -> str:
    """An SVG file as the source of an image."""
    return f'data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}'


def _chart(title: str, draw: Callable[[Axes], None]) -> str:
    """Renders `draw`, with a legend below if there is more than one entry; a data URI."""

    def draw_figure(figure: Figure) -> None:
        ax = figure.add_subplot()
        ax.set_title(title, loc='left', fontsize=9)
        draw(ax)
        if len(ax.get_legend_handles_labels()[0]) > 1:
            figure.legend(loc='outside lower center', ncols=2, fontsize=8)

    return data_uri(draw_svg(draw_figure))


def curve_charts(
    curves: Curves, reference: PublishedCurves | None, *, decays_in_steps: bool = False
) -> dict[str, str]:
    """Draws each of 'loss', 'top1' and 'learning_rate' that has a finite value.

    Args:
      curves: of the run.
      reference: drawn dashed, if the curves are by epoch.
      decays_in_steps: whether the learning rate is divided at milestones; its axis is logarithmic.

    Returns:
      Data URIs by name.
    """
    titles = {'loss': 'Loss (nats)', 'top1': 'Top-1 (%)', 'learning_rate': 'Learning rate'}
    charts = {}
    for name, title in titles.items():
        if any(np.isfinite(s.get(name, [])).any() for s in (curves.train, curves.evaluation)):
            log_scale = decays_in_steps if name == 'learning_rate' else name == 'loss'
            draw = partial(_draw_curves, name, log_scale, curves, reference)
            charts[name] = _chart(title, draw)
    return charts


def _draw_curves(
    name: str, log_scale: bool, curves: Curves, reference: PublishedCurves | None, ax: Axes
) -> None:
    ours = {'training': curves.train, 'evaluation': curves.evaluation}
    for (label, series), color in zip(ours.items(), (BLUE, ORANGE), strict=True):
        _line(ax, series, name, color=color, label=label, linewidth=1.3)
    if reference and curves.unit == 'epoch':
        style = {'linewidth': 0.9, 'linestyle': (0, (3, 2)), 'alpha': 0.85}
        published = {'training': reference.train, 'evaluation': reference.evaluation}
        for (label, series), color in zip(published.items(), (BLUE, ORANGE), strict=True):
            _line(ax, series, name, color=color, label=f'{label}, published', **style)
    shown = np.concatenate([np.asarray(line.get_ydata()) for line in ax.get_lines()])
    if name == 'top1':
        ax.set_ylim(_lowest(ax), 100)
    elif log_scale and (shown > 0).any():
        logarithmic(ax, shown[shown > 0])
    ax.set_xlim(left=0)
    ax.set_xlabel(curves.unit)


def _line(ax: Axes, series: Series, name: str, **style: Any) -> None:
    if name in series and np.isfinite(series[name]).any():
        marker = '' if len(series['x']) > 1 else '.'
        ax.plot(series['x'], series[name], marker=marker, **style)


def _lowest(ax: Axes) -> float:
    """The lowest value after the first tenth of the axis, rounded down to a multiple of ten."""
    lines = [np.asarray(line.get_xydata()) for line in ax.get_lines()]
    begin = 0.1 * max(xy[:, 0].max() for xy in lines)
    late = np.concatenate([xy[xy[:, 0] >= begin, 1] for xy in lines])
    lowest = np.nanmin(late) if np.isfinite(late).any() else 0.0
    return float(min(10 * math.floor(lowest / 10), 90))


def logarithmic(ax: Axes, values: np.ndarray) -> None:
    """Makes the y axis logarithmic, with few labels, for positive `values`."""
    ax.set_yscale('log')
    decades = math.log10(values.max() / values.min())
    steps = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=steps, numticks=8))
    ax.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def reliability_chart(before: Reliability, after: Reliability) -> str:
    """Accuracy by confidence, as trained and with fitted temperatures."""
    return _chart('Accuracy', partial(_draw_reliability, before, after))


def _draw_reliability(before: Reliability, after: Reliability, ax: Axes) -> None:
    width, share = 1 / len(before.counts), before.counts / before.counts.sum()
    middles = before.edges[:-1] + width / 2
    ax.bar(middles, share, 0.9 * width, color=INK, alpha=0.25, lw=0, label='share of images')
    for curve, style, label in (
        (before, {'color': BLUE, 'marker': 'o'}, 'as trained'),
        (after, {'color': ORANGE, 'marker': 's'}, 'with temperature'),
    ):
        used = curve.counts > 0
        line = ax.plot(curve.confidence[used], curve.accuracy[used], ms=3.5, lw=1, label=label)
        line[0].set(**style)
    ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=(0, (2, 2)), label='ideal')
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel='confidence')


def gates_chart(gates: Mapping[str, GateStatistics]) -> str:
    """The mean gate of each block from first to last, with bars of one standard deviation."""
    return _chart('Gate, mean and standard deviation', partial(_draw_gates, gates))


def _draw_gates(gates: Mapping[str, GateStatistics], ax: Axes) -> None:
    x, every = np.arange(len(gates)), math.ceil(len(gates) / 20)
    mean, std = (np.array([getattr(g, name) for g in gates.values()]) for name in ('mean', 'std'))
    ax.errorbar(x, mean, yerr=std, color=BLUE, lw=0.8, elinewidth=1, capsize=2, fmt='o-', ms=3.5)
    ax.set_ylim(0, 1.02 * max(gate.shape.top for gate in gates.values()))
    ax.set_xticks(x[::every], _labels(list(gates))[::every], rotation=90 if len(x) > 6 else 0)
    ax.grid(axis='x', visible=False)


def _labels(names: Sequence[str]) -> list[str]:
    """Drops the name of the attention if all blocks share it: 'layer1_0' for 'layer1_0/ssa'."""
    if len({name.rpartition('/')[2] for name in names}) > 1:
        return list(names)
    return [name.rpartition('/')[0] or name for name in names]
