"""Draws the runs of torch_learning.py as an SVG that follows the reader's color scheme."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssanet_jax.report import charts
from studies.torch_learning_summary import (
    COMPARED_STEPS,
    COMPARISONS,
    Runs,
    comparisons,
    relative_difference,
)


def draw(runs: Runs) -> str:
    """Losses of seed 0 and their relative differences, side by side."""

    def draw_figure(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _losses(runs, left)
        _differences(runs, right)
        for ax in (left, right):
            values = np.concatenate([np.asarray(line.get_ydata()) for line in ax.get_lines()])
            charts.logarithmic(ax, values[values > 0])
            ax.set(xlim=(0, COMPARED_STEPS), xlabel='step')
            ax.legend(loc='upper center', bbox_to_anchor=(0.5, -0.18), ncols=2)

    return charts.draw_svg(draw_figure, height=3.3, width=7.5)


def _losses(runs: Runs, ax: Axes) -> None:
    ours, torch = (runs[name]['losses'][:COMPARED_STEPS] for name in COMPARISONS['float32 torch'])
    ax.plot(ours, color=charts.BLUE, lw=1.6, label='this project')
    ax.plot(torch, color=charts.ORANGE, lw=1, ls=(0, (3, 2)), label='PyTorch')
    ax.set_title('Training loss (nats), float32', loc='left', fontsize=9)


def _differences(runs: Runs, ax: Axes) -> None:
    colors = {'float32': charts.BLUE, 'float64': charts.ORANGE}
    other = {'torch': ('PyTorch', '-'), 'one ulp': ('one ulp', ':')}
    for name in comparisons(runs):
        dtype, _, kind = name.partition(' ')
        label, line = other[kind]
        difference = relative_difference(runs, name)
        y = np.where(difference > 0, difference, np.nan)  # equal losses leave a gap
        ax.plot(y, color=colors[dtype], lw=1.1, ls=line, label=f'{label}, {dtype}')
    ax.set_title('Relative difference of the loss', loc='left', fontsize=9)
