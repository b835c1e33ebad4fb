"""Figures of a study: paired differences, learning curves, and accuracy by cost."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssanet_jax.report.charts import BLUE, INK, ORANGE, draw_svg
from ssanet_jax.study.results import Analysis, Comparison, Estimate, VariantResult

_COLORS = {'helps': BLUE, 'hurts': ORANGE}  # by verdict; others are gray
_ROW = 0.4  # inches per variant


def draw_figures(analysis: Analysis) -> dict[str, str]:
    """Draws the figures of a study.

    Returns:
      SVG by name: 'differences' if there are comparisons, 'curves' if any loss was logged, 'cost'.
    """
    figures = {}
    if rows := len(analysis.comparisons):
        draw = partial(_draw_differences, analysis)
        figures['differences'] = draw_svg(draw, height=0.8 + _ROW * rows)
    curves = {variant.name: variant for variant in analysis.variants if variant.train_loss.steps}
    if curves:
        panels = [name for name in curves if name != analysis.baseline] or [analysis.baseline]
        columns = min(len(panels), 3)
        rows = math.ceil(len(panels) / columns)
        draw = partial(_draw_curves, curves, analysis.baseline, panels, (rows, columns))
        figures['curves'] = draw_svg(draw, height=0.7 + rows * min(2, 3 / columns))
    height = 1.5 + 0.16 * max(8, len(analysis.variants))
    figures['cost'] = draw_svg(partial(_draw_cost, analysis), height)
    return figures


def _draw_differences(analysis: Analysis, figure: Figure) -> None:
    """A forest plot: per row the differences of all pairs, their mean and its interval."""
    ax, effect = figure.add_subplot(), analysis.smallest_effect
    _title(ax, f'Accuracy minus that of {analysis.baseline} (points)')
    ax.axvspan(-effect, effect, color=INK, alpha=0.1, lw=0)
    ax.axvline(0, color=INK, lw=0.8)
    for row, comparison in enumerate(analysis.comparisons):
        _draw_row(ax, row, comparison)
    names = [_wrap(comparison.variant) for comparison in analysis.comparisons]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis='y', length=0)
    ax.grid(axis='y', visible=False)
    ax.set_xlabel(f'gray: within ±{effect:g}, the smallest effect that matters')


def _draw_row(ax: Axes, row: int, comparison: Comparison) -> None:
    test = comparison.accuracy
    color = _COLORS.get(test.verdict, INK)
    _errorbar(ax, test.difference, row - 0.22, color)
    values = np.array(test.difference.values)
    (dots,) = ax.plot(values, row + 0.2 + _spread(values), 'o', ms=3, mew=0, alpha=0.5, color=color)
    dots.set_gid(f'pairs_{comparison.variant}')


def _errorbar(ax: Axes, estimate: Estimate, y: float, color: str) -> None:
    ax.plot(estimate.mean, y, 'D', ms=4.5, color=color)
    if estimate.low is not None and estimate.high is not None:
        ax.plot([estimate.low, estimate.high], [y, y], color=color, lw=1.6)


def _spread(values: np.ndarray) -> np.ndarray:
    """Vertical offsets from -0.2 to 0.2 that separate equal values."""
    offsets = np.zeros(len(values))
    rounded = values.round(6)
    for value in np.unique(rounded):
        same = np.flatnonzero(rounded == value)
        reach = min(0.2, 0.06 * (len(same) - 1))
        offsets[same] = np.linspace(-reach, reach, len(same)) if reach else 0
    return offsets


def _draw_curves(
    curves: Mapping[str, VariantResult],
    baseline: str,
    panels: Sequence[str],
    grid: tuple[int, int],
    figure: Figure,
) -> None:
    """A panel per variant, each with the baseline: a dozen curves in one panel hide each other."""
    axes = figure.subplots(*grid, sharex=True, sharey=True, squeeze=False)
    for i, ax in enumerate(axes.flat):
        if i >= len(panels):
            ax.set_visible(False)
            continue
        ax.set_title(_wrap(panels[i]), loc='left', fontsize=8)
        for name in dict.fromkeys([panels[i], baseline]):
            if name in curves:
                _draw_curve(ax, curves[name], INK if name == baseline else BLUE)
        ax.tick_params(labelbottom=i + grid[1] >= len(panels))
    _scale(axes[0, 0], np.concatenate([v.train_loss.mean for v in curves.values()]))
    figure.supxlabel('training step', fontsize=8)
    figure.suptitle('Training loss (nats)', fontsize=9, x=0.01, ha='left')


def _scale(ax: Axes, means: np.ndarray) -> None:
    """Sets the scales and ticks that all panels share; logarithmic if losses span a decade."""
    if means.min() > 0 and means.max() > 10 * means.min():
        ax.set_yscale('log')
        ax.set_ylim(0.7 * means.min(), 1.3 * means.max())
        ax.yaxis.set_major_locator(ticker.LogLocator(numticks=4))
        ax.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
        ax.yaxis.set_minor_locator(ticker.NullLocator())
    ax.xaxis.set_major_locator(ticker.MaxNLocator(2))
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))


def _draw_curve(ax: Axes, variant: VariantResult, color: str) -> None:
    curve = variant.train_loss
    steps, mean, sd = (np.array(values) for values in (curve.steps, curve.mean, curve.sd))
    ax.fill_between(steps, mean - sd, mean + sd, color=color, alpha=0.2, lw=0)
    marker = '' if len(steps) > 1 else '.'
    ax.plot(steps, mean, marker=marker, color=color, lw=1.1)


def _draw_cost(analysis: Analysis, figure: Figure) -> None:
    ax, variants = figure.add_subplot(), {v.name: v for v in analysis.variants}
    reference = variants.get(analysis.baseline, analysis.variants[0])
    x, what = relative_cost(analysis, reference)
    _title(ax, 'Test accuracy (%), mean and 95% interval')
    for value, variant in zip(x, variants.values(), strict=True):
        accuracy, bars = variant.accuracy, None
        marker, color = ('s', INK) if variant.name == analysis.baseline else ('o', BLUE)
        if accuracy.low is not None and accuracy.high is not None:
            bars = [[accuracy.mean - accuracy.low], [accuracy.high - accuracy.mean]]
        ax.errorbar(value, accuracy.mean, yerr=bars, fmt=marker, color=color, ms=4, elinewidth=1)
    ax.margins(x=0.08)
    ax.set_xlabel(f'{what}, relative to {reference.name}')
    ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
    _label_at_right(ax, x, np.array([v.accuracy.mean for v in variants.values()]), list(variants))


def relative_cost(analysis: Analysis, reference: VariantResult) -> tuple[np.ndarray, str]:
    """The cost in which variants differ visibly: MACs if by 10% or more, else training time.

    Returns:
      Cost of each variant as a multiple of that of `reference`, [variants], and its name.
    """
    macs = np.array([variant.macs for variant in analysis.variants])
    if macs.max() >= 1.1 * macs.min():
        return macs / reference.macs, 'MACs per image'
    seconds = np.array([variant.seconds for variant in analysis.variants])
    return seconds / reference.seconds, 'training time'


def _label_at_right(ax: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Names points in a column on the right, from low to high, with lines to the points."""
    low, high = ax.get_ylim()
    gap, order = 0.97 / max(8, len(names)), np.argsort(y, kind='stable')
    heights = (y[order] - low) / (high - low)
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    heights = np.minimum(heights, 0.97 - gap * np.arange(len(heights))[::-1])
    line = {'arrowstyle': '-', 'lw': 0.5, 'color': INK, 'alpha': 0.5, 'relpos': (0, 0.5)}
    for height, i in zip(heights, order, strict=True):
        ax.annotate(
            _wrap(names[i]),
            xy=(x[i], y[i]),
            xytext=(1.06, height),
            textcoords='axes fraction',
            va='center',
            arrowprops=line,
        )


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc='left', fontsize=9)


def _wrap(name: str) -> str:
    """Breaks a long name into lines, after underscores where possible."""
    return textwrap.fill(name.replace('_', '_ '), 15).replace('_ ', '_')
