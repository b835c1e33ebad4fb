"""Draws where a network looks: maps laid over images, side by side."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ssanet_jax.trained.saliency import Look, enlarge, legible_size

COLORMAP = 'inferno'  # perceptually uniform, and black where a map is lowest
ALPHA = 0.6

_PANEL = 1.5  # inches
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_LABEL_LENGTH = 20


def overlay(image: np.ndarray, saliency: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """Lays a map over an image, which is drawn in grey, so that all colour is the map's.

    Args:
      image: uint8 [h, w, 3].
      saliency: [H, W], from 0 to 1, see `saliency_runs.stage_maps`; as large as the image, or a
        whole number of times, which the image is then magnified.
      alpha: the weight of the map's colours, from 0 to 1.

    Returns:
      Uint8 [H, W, 3].

    Raises:
      ValueError: shapes do not fit, or a value is not from 0 to 1.
    """
    (height, width), (rows, columns) = image.shape[:2], saliency.shape
    times = max(1, rows // height)
    if (rows, columns) != (times * height, times * width):
        raise ValueError(
            f'A map {saliency.shape} cannot be laid over an image {image.shape}; enlarge() it.'
        )
    if not np.all((saliency >= 0) & (saliency <= 1)) or not 0 <= alpha <= 1:
        raise ValueError(
            f'overlay takes a map and an alpha from 0 to 1, got a map from {saliency.min():.3g} to '
            f'{saliency.max():.3g} and alpha={alpha}; rescale() the map.'
        )
    grey = (image @ _LUMINANCE)[..., None].repeat(times, axis=0).repeat(times, axis=1)
    colors = 255 * mpl.colormaps[COLORMAP](saliency)[..., :3]
    return np.round((1 - alpha) * grey + alpha * colors).astype(np.uint8)


def draw(looks: Sequence[Look], alpha: float = ALPHA) -> Figure:
    """Images, and the map of each stage, their mean and Grad-CAM over each image.

    Every map is scaled to its own range, which stands below it. Several images are a row each; one
    alone is wrapped into two.

    Args:
      looks: from `saliency_runs.look`, of one run.
      alpha: see `overlay`.

    Returns:
      A figure, to save with `figure.savefig(path)`.
    """
    count = 1 + len(looks[0].maps)
    columns = math.ceil(count / 2) if len(looks) == 1 else count
    rows = math.ceil(count * len(looks) / columns)
    titles = rows if len(looks) == 1 else 1  # rows that have some
    height = rows * (_PANEL + 0.45) + titles * 0.24 + 0.45
    layout = ConstrainedLayoutEngine(h_pad=0.05, hspace=0)
    figure = Figure((columns * _PANEL, height), dpi=150, layout=layout)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[*[1] * rows, 0.06])
    for number, one in enumerate(looks):
        for place, (title, image, label) in enumerate(_panels(one, alpha), number * count):
            ax = figure.add_subplot(grid[divmod(place, columns)])
            _show(ax, image, title if number == 0 else '', label)
    _color_bar(figure, figure.add_subplot(grid[rows, :]))
    return figure


def _panels(one: Look, alpha: float) -> list[tuple[str, np.ndarray, str]]:
    """Title, image and label of each."""
    panels = [('image', one.image, f'{_short(one.name)}\n{one.probability:.1%}')]
    for name, values in one.maps.items():
        scaled = enlarge(values[None], legible_size(len(one.image)))[0]
        height, width = values.shape
        label = f'{_range(values)}\n{height} \u00d7 {width}'
        panels.append((name.replace('stage', 'stage '), overlay(one.image, scaled, alpha), label))
    return panels


def _show(ax: Axes, image: np.ndarray, title: str, label: str) -> None:
    ax.imshow(image, interpolation='nearest' if len(image) < 100 else 'antialiased')
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=10, pad=4)
    ax.set_xlabel(label, fontsize=9, labelpad=3, linespacing=1.3, parse_math=False)


def _color_bar(figure: Figure, ax: Axes) -> None:
    bar = figure.colorbar(ScalarMappable(cmap=COLORMAP), cax=ax, orientation='horizontal')
    bar.outline.set_visible(False)
    bar.set_ticks([0, 1], labels=["a map's lowest value", 'its highest'], fontsize=9)
    ax.tick_params(length=0)
    low, high = ax.get_xticklabels()
    low.set_horizontalalignment('left')
    high.set_horizontalalignment('right')


def _short(name: str) -> str:
    """The first of several names of a class, no longer than fits."""
    name = name.partition(',')[0]
    return name if len(name) <= _LABEL_LENGTH else f'{name[: _LABEL_LENGTH - 1]}…'


def _range(values: np.ndarray) -> str:
    """Lowest and highest, with as many decimals as tell them apart.

    >>> _range(np.array([0.46249, 0.5631])), _range(np.array([0.7021, 0.7104]))
    ('0.46 to 0.56', '0.7021 to 0.7104')
    >>> _range(np.array([3e-9, 5e-9])), _range(np.ones(2))
    ('3e-09 to 5e-09', 'about 1')
    """
    low, high = float(values.min()), float(values.max())
    decimals = 2 if high - low >= 0.1 else math.ceil(-math.log10(max(high - low, 1e-99))) + 1
    form = f'.{decimals}f' if decimals <= 6 else '.3g'
    ends = [format(end, form) for end in (low, high)]
    return f'about {ends[0]}' if ends[0] == ends[1] else ' to '.join(ends)
