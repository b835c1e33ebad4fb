"""A folder of figures of where a network looks, with a page that shows them all."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from ssanet_jax.trained.saliency import Look
from ssanet_jax.trained.saliency_figures import ALPHA, draw

_NAME_LENGTH = 60


class Card(NamedTuple):
    """A figure on the page.

    Attributes:
      file: the image.
      name, probability: of the likeliest class.
      figure: its file in the folder.
      width, height: of the figure in pixels.
    """

    file: str
    name: str
    probability: float
    figure: str
    width: int
    height: int


def write_figure(
    folder: Path, number: int, file: str, one: Look, *, alpha: float = ALPHA, raw: bool = False
) -> Card:
    """Writes the figure of one image as `NUMBER_NAME.png`; `raw` adds its maps as .npz.

    Args:
      folder: where to.
      number: of the image, so that equal names of files do not collide.
      file: the image's path.
      one: from `saliency_runs.look`.
      alpha: see `saliency_figures.overlay`.
      raw: write 'image', the maps of `Look` by their names, and those of the blocks.
    """
    stem = re.sub(r'[^\w.-]', '_', Path(file).stem, flags=re.ASCII)[:_NAME_LENGTH]
    path = folder / f'{number:04d}_{stem}.png'
    figure = draw([one], alpha)
    figure.savefig(path)
    if raw:
        arrays: dict[str, Any] = {'image': one.image, **one.maps, **one.blocks}
        np.savez_compressed(path.with_suffix('.npz'), **arrays)
    width, height = figure.canvas.get_width_height()
    return Card(file, one.name, one.probability, path.name, width, height)


def write_page(
    folder: Path,
    title: str,
    paragraphs: Sequence[str],
    cards: Sequence[Card],
    bad: Sequence[tuple[str, str]],
) -> Path:
    """Writes `index.html`, which needs the figures beside it and nothing else.

    Args:
      folder: of the figures.
      title: of the page.
      paragraphs: what to say first.
      cards: the figures.
      bad: (file, reason) of the images that could not be read.

    Returns:
      Its path.
    """
    loader = jinja2.PackageLoader('ssanet_jax.analysis', 'templates')
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template('saliency.html').render(
        title=title, paragraphs=paragraphs, cards=cards, bad=bad
    )
    path = folder / 'index.html'
    path.write_text(page, 'utf-8')
    return path
