"""Figures of saliency maps laid over images, and a page that shows a folder of them."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ssanet_jax.trained.glyphs import legible
from ssanet_jax.trained.saliency import Saliency, enlarge, legible_size

COLORMAP = 'inferno'  # perceptually uniform; black at a map's minimum
ALPHA = 0.6

_PANEL = 1.5  # inches
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_LABEL_LENGTH = 20
_NAME_LENGTH = 60  # of files


def overlay(image: np.ndarray, saliency: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """Lays a map in color over an image in gray.

    Args:
      image: uint8 [h, w, 3].
      saliency: [H, W], from 0 to 1, as from `enlarge`. H and W are the same multiple of h and
        w; the image is magnified accordingly.
      alpha: weight of the map's colors, from 0 to 1.

    Returns:
      Uint8 [H, W, 3].

    Raises:
      ValueError: the shapes do not fit, or a value is outside of 0..1.
    """
    (height, width), (rows, columns) = image.shape[:2], saliency.shape
    times = max(1, rows // height)
    if (rows, columns) != (times * height, times * width):
        raise ValueError(
            f'A map {saliency.shape} cannot be laid over an image {image.shape}; enlarge() the map.'
        )
    if not np.all((saliency >= 0) & (saliency <= 1)) or not 0 <= alpha <= 1:
        raise ValueError(
            f'overlay expects a map and alpha from 0 to 1, got a map from {saliency.min():.3g} to '
            f'{saliency.max():.3g} and alpha={alpha}; rescale() the map.'
        )
    gray = (image @ _LUMINANCE)[..., None].repeat(times, axis=0).repeat(times, axis=1)
    colors = 255 * mpl.colormaps[COLORMAP](saliency)[..., :3]
    return np.round((1 - alpha) * gray + alpha * colors).astype(np.uint8)


def draw_saliency(images: Sequence[Saliency], alpha: float = ALPHA) -> Figure:
    """Images with the map of each stage, their mean and Grad-CAM laid over them.

    Every map is rescaled to 0..1; its original range is printed below it. Several images have one
    row each; a single image has two.

    Args:
      images: from `explain`, of one model.
      alpha: see `overlay`.

    Returns:
      A figure, to save with `figure.savefig(path)`.
    """
    count = 1 + len(images[0].maps)
    columns = math.ceil(count / 2) if len(images) == 1 else count
    rows = math.ceil(count * len(images) / columns)
    titles = rows if len(images) == 1 else 1  # rows that have titles
    height = rows * (_PANEL + 0.45) + titles * 0.24 + 0.45
    layout = ConstrainedLayoutEngine(h_pad=0.05, hspace=0)
    figure = Figure((columns * _PANEL, height), dpi=150, layout=layout)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[*[1] * rows, 0.06])
    for row, saliency in enumerate(images):
        for panel, (title, image, label) in enumerate(_panels(saliency, alpha), row * count):
            ax = figure.add_subplot(grid[divmod(panel, columns)])
            _show(ax, image, title if row == 0 else '', label)
    _color_bar(figure, figure.add_subplot(grid[rows, :]))
    return figure


def _panels(saliency: Saliency, alpha: float) -> list[tuple[str, np.ndarray, str]]:
    """The title, image and label of each panel."""
    panels = [('image', saliency.image, f'{_short(saliency.name)}\n{saliency.probability:.1%}')]
    for name, values in saliency.maps.items():
        scaled = enlarge(values, legible_size(len(saliency.image)))
        height, width = values.shape
        label = f'{_range(values)}\n{height} \u00d7 {width}'
        panels.append(
            (name.replace('stage', 'stage '), overlay(saliency.image, scaled, alpha), label)
        )
    return panels


def _show(ax: Axes, image: np.ndarray, title: str, label: str) -> None:
    ax.imshow(image, interpolation='nearest' if len(image) < 100 else 'antialiased')
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=10, pad=4)
    drawn, families = legible(label)
    style: dict[str, Any] = {'fontfamily': families, 'linespacing': 1.3, 'parse_math': False}
    ax.set_xlabel(drawn, fontsize=9, labelpad=3, **style)


def _color_bar(figure: Figure, ax: Axes) -> None:
    bar = figure.colorbar(ScalarMappable(cmap=COLORMAP), cax=ax, orientation='horizontal')
    bar.outline.set_visible(False)
    bar.set_ticks([0, 1], labels=["a map's lowest value", 'its highest'], fontsize=9)
    ax.tick_params(length=0)
    low, high = ax.get_xticklabels()
    low.set_horizontalalignment('left')
    high.set_horizontalalignment('right')


def _short(name: str) -> str:
    """The first of a class's comma-separated names, truncated."""
    name = name.partition(',')[0]
    return name if len(name) <= _LABEL_LENGTH else f'{name[: _LABEL_LENGTH - 1]}…'


def _range(values: np.ndarray) -> str:
    """Minimum and maximum, with enough decimals to tell them apart.

    >>> _range(np.array([0.46249, 0.5631])), _range(np.array([0.7021, 0.7104]))
    ('0.46 to 0.56', '0.7021 to 0.7104')
    >>> _range(np.array([3e-9, 5e-9])), _range(np.ones(2))
    ('3e-09 to 5e-09', 'about 1')
    """
    low, high = float(values.min()), float(values.max())
    decimals = 2 if high - low >= 0.1 else math.ceil(-math.log10(max(high - low, 1e-99))) + 1
    spec = f'.{decimals}f' if decimals <= 6 else '.3g'
    ends = [format(end, spec) for end in (low, high)]
    return f'about {ends[0]}' if ends[0] == ends[1] else ' to '.join(ends)


class Card(NamedTuple):
    """A figure on the page.

    Attributes:
      file: path of the image.
      name, probability: of the most probable class.
      figure: file name of the figure in the folder.
      width, height: of the figure in pixels.
    """

    file: str
    name: str
    probability: float
    figure: str
    width: int
    height: int


def write_figure(
    folder: Path,
    number: int,
    file: str,
    saliency: Saliency,
    *,
    alpha: float = ALPHA,
    raw: bool = False,
) -> Card:
    """Writes the figure of one image as `NUMBER_NAME.png`.

    Args:
      folder: the output folder.
      number: of the image; keeps files of the same name apart.
      file: path of the image.
      saliency: from `explain`.
      alpha: see `overlay`.
      raw: also write an .npz with 'image' and all maps by their names.
    """
    stem = re.sub(r'[^\w.-]', '_', Path(file).stem)[:_NAME_LENGTH]
    path = folder / f'{number:04d}_{stem}.png'
    figure = draw_saliency([saliency], alpha)
    figure.savefig(path)
    if raw:
        arrays: dict[str, Any] = {'image': saliency.image, **saliency.maps, **saliency.blocks}
        np.savez_compressed(path.with_suffix('.npz'), **arrays)
    width, height = figure.canvas.get_width_height()
    return Card(file, saliency.name, saliency.probability, path.name, width, height)


def write_page(
    folder: Path,
    title: str,
    paragraphs: Sequence[str],
    cards: Sequence[Card],
    bad: Sequence[tuple[str, str]],
) -> Path:
    """Writes `index.html`, which needs only the figures in its folder; returns its path.

    Args:
      folder: of the figures.
      title: of the page.
      paragraphs: introductory text.
      cards: the figures.
      bad: (file, reason) of the images that could not be read.
    """
    loader = jinja2.PackageLoader('ssanet_jax.trained', 'templates')
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template('saliency.html').render(
        title=title, paragraphs=paragraphs, cards=cards, bad=bad
    )
    path = folder / 'index.html'
    path.write_text(page, 'utf-8')
    return path
