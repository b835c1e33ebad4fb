"""Boxes around the things in image files, as a run's evaluation sees them."""

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from ssanet_jax.analysis.saliency_scores import box_mask
from ssanet_jax.data.crops import center_window
from ssanet_jax.errors import ConfigError

_FAR = 1e9  # pixels


def read_boxes(path: str | Path) -> dict[str, np.ndarray]:
    """Boxes [n, 4], (top, left, bottom, right) in pixels, by the path or the name of an image.

    Args:
      path: a JSON file: {"photos/cat.jpg": [[top, left, bottom, right], ...], ...}.

    Raises:
      ConfigError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f'{path} cannot be read: {" ".join(str(error).split())}.') from error
    if not isinstance(content, dict):
        raise ConfigError(
            f'{path} is not {{"IMAGE": [[top, left, bottom, right], ...], ...}} but a '
            f'{type(content).__name__}.'
        )
    return {name: _checked(path, name, boxes) for name, boxes in content.items()}


def _checked(path: str | Path, name: str, boxes: object) -> np.ndarray:
    for box in boxes if isinstance(boxes, list) and boxes else [boxes]:
        if not _is_box(box):
            raise ConfigError(
                f'{path}, {name!r}: {json.dumps(box)[:60]} is no box [top, left, bottom, right] in '
                'pixels, with top above bottom and left before right; an image has a list of them.'
            )
    return np.array(boxes, np.float64)


def _is_box(box: Any) -> bool:
    numbers = isinstance(box, list) and all(type(side) in (int, float) for side in box)
    return (
        numbers
        and len(box) == 4
        and all(abs(side) < _FAR for side in box)  # and not NaN
        and box[0] < box[2]
        and box[1] < box[3]
    )


def boxes_by_file(
    boxes: dict[str, np.ndarray], files: Sequence[Path | bytes]
) -> list[np.ndarray | None]:
    """The boxes of each file, by its path as it is given, or else by its name; None: it has none.

    Raises:
      ConfigError: no file has boxes, or several are meant by one name.
    """
    found: list[np.ndarray | None] = []
    seen: dict[str, Path] = {}
    for file in files:
        if isinstance(file, bytes):
            found.append(boxes.get('-'))
            continue
        found.append(boxes.get(str(file)))
        if found[-1] is None and file.name in boxes:
            if seen.setdefault(file.name, file) != file:
                raise ConfigError(
                    f'{file.name!r} could be {seen[file.name]} or {file}; give their boxes by '
                    'their paths.'
                )
            found[-1] = boxes[file.name]
    if boxes and all(one is None for one in found):
        raise ConfigError(
            f'None of the {len(files):,} images has boxes; the first image is '
            f'{files[0] if isinstance(files[0], Path) else "-"}, the first boxes are of '
            f'{next(iter(boxes))!r}.'
        )
    return found


def image_sides(file: Path | bytes) -> tuple[int, int]:
    """Height and width of a JPEG or PNG image, of which only the beginning is read.

    Raises:
      ValueError: they cannot be read; it says why.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # nothing is decompressed
        try:
            if isinstance(file, Path) and not file.is_file():  # A pipe would be waited for.
                raise ValueError('it is not a regular file')
            source = io.BytesIO(file) if isinstance(file, bytes) else file
            with Image.open(source, formats=('JPEG', 'PNG')) as image:
                return image.height, image.width
        # ValueError: Pillow's own too, as of text in a PNG that unpacks to more than a limit.
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            reason = ' '.join(str(error).split())
            raise ValueError(f'Its size cannot be read for its boxes: {reason}.') from error


def regions(
    boxes: Sequence[np.ndarray | None], files: Sequence[Path | bytes], dataset: ConfigDict
) -> dict[int, np.ndarray | str | None]:
    """Where the boxes of each file are, by the file's number, if it has any.

    Args:
      boxes: from `boxes_by_file`.
      files: of which the beginnings are read.
      dataset: of a run's config.

    Returns:
      {0: bool [size, size] or None, see `to_evaluation`; 2: why the image's size cannot be read}.
    """
    found: dict[int, np.ndarray | str | None] = {}
    for number, (given, file) in enumerate(zip(boxes, files, strict=True)):
        if given is not None:
            try:
                found[number] = to_evaluation(given, *image_sides(file), dataset)
            except ValueError as error:
                found[number] = str(error)
    return found


def to_evaluation(
    boxes: np.ndarray, height: int, width: int, dataset: ConfigDict
) -> np.ndarray | None:
    """Where boxes of an image are in what evaluation makes of it.

    Args:
      boxes: [n, 4], (top, left, bottom, right) in pixels of the image.
      height, width: of the image.
      dataset: of a run's config.

    Returns:
      Bool [size, size], the pixels whose middle is in a box; None where there are none: the crop
      has cut the boxes off, or they are too small.
    """
    size, shown = dataset.image_size, np.array([[0, 0], [height, width]])
    if dataset.eval_crop == 'center':
        shown = center_window((height, width), size, dataset.eval_crop_pct)
    corner, sides = shown[0], shown[1] - shown[0]
    mask = box_mask((boxes - np.tile(corner, 2)) * np.tile(size / sides, 2), size, size)
    return mask if mask.any() else None
