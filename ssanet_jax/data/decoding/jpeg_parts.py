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
      file: the JPEG.
      sides: height and width of the stored image.
      window: int32 [4], (top, left, height, width) in the stored image after `halvings`.
      halvings: how many times the image is halved.
      tag: the orientation.
    """

    file: bytes
    sides: tuple[int, int]
    window: np.ndarray
    halvings: int
    tag: int


def find_parts(
    files: Sequence[bytes | np.ndarray], uniforms: np.ndarray, size: int, dataset: ConfigDict
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
    jpegs = {
        row: file
        for row, file in enumerate(files)
        if isinstance(file, bytes) and file.startswith(_JPEG)
    }
    stored = {row: found for row, file in jpegs.items() if (found := _sides(file, dataset))}
    if not stored:
        return {}
    rows = list(stored)
    tags = np.array([jpeg_segments.orientation(jpegs[row]) for row in rows])
    sides = upright_sides(np.array(list(stored.values())), tags)
    windows = crop_windows(sides, uniforms[rows], dataset.crop_area, dataset.crop_aspect)
    times = np.clip(windows[:, 2:].min(axis=1) // size, 1, 2**jpeg.MAX_HALVINGS)
    halvings = np.log2(times).astype(np.int32)
    windows = reduced_windows(stored_windows(windows, sides, tags), halvings)
    parts = zip(rows, stored.values(), windows, halvings.tolist(), tags.tolist(), strict=True)
    return {row: Part(jpegs[row], *part) for row, *part in parts}


def _sides(file: bytes, dataset: ConfigDict) -> tuple[int, int] | None:
    sides = jpeg.stored_shape(file)
    try:
        check_bytes(file, dataset)
        check_pixels(*(sides or (0, 0)), dataset)
    except BadImageError:
        return None
    return sides


def decode_part(part: Part) -> np.ndarray:
    """Decodes a part; returns uint8 [H, W, 3], upright. Raises BadImageError."""
    file, sides, window, halvings, tag = part
    image = jpeg.decode_window(file, sides, window, halvings)
    if may_end_early(image):
        noisy = jpeg_segments.with_noise(file)
        if not np.array_equal(image, jpeg.decode_window(noisy, sides, window, halvings)):
            raise BadImageError(TRUNCATED)
    return upright(image, tag)
