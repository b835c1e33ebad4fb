"""Random resized crops of JPEGs: which part of each to decode, and at which size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data.decoding import jpeg, jpeg_segments
from ssanet_jax.data.decoding.crops import crop_windows, reduced_windows
from ssanet_jax.data.decoding.formats import BadImageError
from ssanet_jax.data.decoding.images import TRUNCATED, check_bytes, check_pixels, may_end_early
from ssanet_jax.data.decoding.orientation import stored_windows, upright, upright_sides

_JPEG = b'\xff\xd8\xff'


class Part(NamedTuple):
    """A part of a JPEG.

    Attributes:
      sides: height and width of the stored image.
      window: int32 [4], (top, left, height, width) in the stored image after `halvings`.
      halvings: how many times the image is halved.
      tag: the orientation.
    """

    sides: tuple[int, int]
    window: np.ndarray
    halvings: int
    tag: int


def find_parts(
    files: Sequence[bytes], uniforms: np.ndarray, size: int, dataset: ConfigDict
) -> dict[int, Part]:
    """Places a random resized crop in each JPEG; files that `decode_image` must see are left out.

    Args:
      files: n images of any format.
      uniforms: float32 [n, 22], as `crop_windows` takes.
      size: of the resized crop. An image is halved while the crop has at least twice this size.
      dataset: `config.dataset`; reads the crop and the limits.

    Returns:
      {row of `files`: part}.
    """
    stored = {row: sides for row, file in enumerate(files) if (sides := _sides(file, dataset))}
    if not stored:
        return {}
    rows = list(stored)
    tags = np.array([jpeg_segments.orientation(files[row]) for row in rows])
    sides = upright_sides(np.array(list(stored.values())), tags)
    windows = crop_windows(sides, uniforms[rows], dataset.crop_area, dataset.crop_aspect)
    times = np.clip(windows[:, 2:].min(axis=1) // size, 1, 2**jpeg.MAX_HALVINGS)
    halvings = np.log2(times).astype(np.int32)
    windows = reduced_windows(stored_windows(windows, sides, tags), halvings)
    parts = zip(stored.values(), windows, halvings.tolist(), tags.tolist(), strict=True)
    return {row: Part(*part) for row, part in zip(rows, parts, strict=True)}


def _sides(file: bytes, dataset: ConfigDict) -> tuple[int, int] | None:
    if not file.startswith(_JPEG) or not (sides := jpeg.sides(file)):
        return None
    try:
        check_bytes(file, dataset)
        check_pixels(*sides, dataset)
    except BadImageError:
        return None
    return sides


def decode_part(file: bytes, part: Part) -> np.ndarray:
    """Decodes a part; returns uint8 [H, W, 3], upright. Raises BadImageError."""
    *where, tag = part
    image = jpeg.decode_window(file, *where)
    if may_end_early(image):
        again = jpeg.decode_window(jpeg_segments.with_noise(file), *where)
        if not np.array_equal(image, again):
            raise BadImageError(TRUNCATED)
    return upright(image, tag)
