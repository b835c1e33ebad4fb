"""JPEGs decoded by libjpeg-turbo, through simplejpeg: whole and exactly, or a part and fast."""

from typing import Any

import numpy as np
import simplejpeg

from ssanet_jax.data.decoding.formats import BadImageError
from ssanet_jax.data.decoding.jpeg_segments import with_height

MAX_HALVINGS = 3  # of the resolution; libjpeg's limit


def stored_shape(file: bytes) -> tuple[int, int] | None:
    """Height and width as stored; None for what Pillow decodes, CMYK and rare subsampling."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(file, strict=False)
    except (KeyError, ValueError):  # KeyError: simplejpeg has no name for the subsampling
        return None
    return None if colors in ('CMYK', 'YCCK') else (height, width)


def decode(file: bytes, **options: Any) -> np.ndarray:
    """Decodes a file, exactly by default; returns uint8 [H, W, 3]. Raises BadImageError.

    Args:
      file: the JPEG.
      options: of `simplejpeg.decode_jpeg`.
    """
    try:
        return simplejpeg.decode_jpeg(file, strict=False, **options)
    except ValueError as error:
        raise BadImageError(f'It cannot be decoded as JPEG: {error}.') from error


def decode_window(
    file: bytes, sides: tuple[int, int], window: np.ndarray, halvings: int
) -> np.ndarray:
    """Decodes a part of a file, at full size or less.

    The integer DCT is the fast one, and the color planes are not smoothed. Rows below the part are
    not decoded, as the header is made to say that there are none.

    Args:
      file: the JPEG.
      sides: height and width, as from `stored_shape`.
      window: int [4], (top, left, height, width) in pixels of the reduced image.
      halvings: how many times the image is halved, 0 to 3.

    Returns:
      uint8 [height, width, 3], a view.

    Raises:
      BadImageError: it cannot be decoded.
    """
    top, left, height, width = window.tolist()
    bottom, factor = top + height, 1 << halvings
    if bottom * factor < sides[0]:
        file = with_height(file, bottom * factor)
    image = decode(
        file,
        fastdct=True,
        fastupsample=True,
        min_height=bottom,
        min_width=-(-sides[1] // factor),
        min_factor=float(factor),
    )
    return image[top:bottom, left : left + width]
