"""Bounding boxes of image files, mapped to the images that evaluation sees."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.analysis.saliency_scores import box_mask
from ssanet_jax.config.sizes import eval_size
from ssanet_jax.data.decoding.crops import center_window
from ssanet_jax.errors import ConfigError, one_line

_FAR = 1e9  # pixels


def read_boxes(path: str | Path) -> dict[str, np.ndarray]:
    """Reads boxes [n, 4], (top, left, bottom, right) in pixels, by path or name of the image.

    Args:
      path: a JSON file: {"photos/cat.jpg": [[top, left, bottom, right], ...], ...}.

    Raises:
      ConfigError: the file cannot be read or is malformed.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f'{path} cannot be read: {one_line(error)}.') from error
    if not isinstance(content, dict):
        raise ConfigError(
            f'{path} must hold {{"IMAGE": [[top, left, bottom, right], ...], ...}}, got a '
            f'{type(content).__name__}.'
        )
    return {name: _checked(path, name, boxes) for name, boxes in content.items()}


def _checked(path: str | Path, name: str, boxes: object) -> np.ndarray:
    for box in boxes if isinstance(boxes, list) and boxes else [boxes]:
        if not _is_box(box):
            raise ConfigError(
                f'{path}, {name!r}: expected a list of boxes [top, left, bottom, right] in pixels, '
                f'with top < bottom and left < right; got {json.dumps(box)[:60]}.'
            )
    return np.array(boxes, np.float64)


def _is_box(box: object) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(side) in (int, float) for side in box)
        and all(abs(side) < _FAR for side in box)  # and not NaN
        and box[0] < box[2]
        and box[1] < box[3]
    )


def boxes_by_file(
    boxes: dict[str, np.ndarray], files: Sequence[Path | bytes]
) -> list[np.ndarray | None]:
    """The boxes of each file, looked up by its path, then by its name; None if it has none.

    Raises:
      ConfigError: no file has boxes, or a name is ambiguous.
    """
    matched: list[np.ndarray | None] = []
    seen: dict[str, Path] = {}
    for file in files:
        if isinstance(file, bytes):
            matched.append(boxes.get('-'))
            continue
        matched.append(boxes.get(str(file)))
        if matched[-1] is None and file.name in boxes:
            if seen.setdefault(file.name, file) != file:
                raise ConfigError(
                    f'{file.name!r} is ambiguous: {seen[file.name]} or {file}; name the boxes by '
                    'full path.'
                )
            matched[-1] = boxes[file.name]
    if boxes and all(entry is None for entry in matched):
        raise ConfigError(
            f'None of the {len(files):,} images has boxes; the first image is '
            f'{files[0] if isinstance(files[0], Path) else "-"}, the first boxes are of '
            f'{next(iter(boxes))!r}.'
        )
    return matched


def image_shape(file: Path | bytes, dataset: ConfigDict) -> tuple[int, int]:
    """Height and width of an image as viewers show it, read without decoding it.

    Raises:
      ValueError: they cannot be read.
    """
    from ssanet_jax.data.decoding import images

    try:
        if isinstance(file, Path):
            if not file.is_file():  # Opening a pipe would block.
                raise ValueError('it is not a regular file.')
            with file.open('rb') as stream:
                file = stream.read(dataset.max_image_bytes + 1)
        return images.image_shape(file, dataset)
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise ValueError(
            f'The image size, needed for its boxes, cannot be read: {reason}'
        ) from error


def regions(
    boxes: Sequence[np.ndarray | None], files: Sequence[Path | bytes], dataset: ConfigDict
) -> dict[int, np.ndarray | str | None]:
    """The mask of each file that has boxes, by the file's number.

    Args:
      boxes: from `boxes_by_file`.
      files: the images; they are not decoded.
      dataset: of a run's config.

    Returns:
      {0: bool [size, size] or None, see `to_evaluation`; 2: why the image size cannot be read}.
    """
    masks: dict[int, np.ndarray | str | None] = {}
    for number, (box, file) in enumerate(zip(boxes, files, strict=True)):
        if box is not None:
            try:
                masks[number] = to_evaluation(box, *image_shape(file, dataset), dataset)
            except ValueError as error:
                masks[number] = str(error)
    return masks


def to_evaluation(
    boxes: np.ndarray, height: int, width: int, dataset: ConfigDict
) -> np.ndarray | None:
    """The mask of an image's boxes after evaluation's crop and resize.

    Args:
      boxes: [n, 4], (top, left, bottom, right) in pixels of the image.
      height, width: of the image.
      dataset: of a run's config.

    Returns:
      Bool [size, size], the pixels whose center is in a box; None if there are none, because the
      boxes are cropped away or too small.
    """
    size, shown = eval_size(dataset), np.array([[0, 0], [height, width]])
    if dataset.eval_crop == 'center':
        shown = center_window((height, width), size, dataset.eval_crop_pct)
    corner, sides = shown[0], shown[1] - shown[0]
    mask = box_mask((boxes - np.tile(corner, 2)) * np.tile(size / sides, 2), size, size)
    return mask if mask.any() else None
