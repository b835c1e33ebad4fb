"""Decodes whole images of any format exactly, upright and on white.

libjpeg-turbo decodes JPEGs, Pillow the others. Formats are told by content.
"""

import io
import warnings

import numpy as np
from ml_collections import ConfigDict
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from ssanet_jax.data.decoding import formats, jpeg, jpeg_segments
from ssanet_jax.data.decoding.formats import BadImageError, TooLargeError
from ssanet_jax.data.decoding.orientation import upright

# Not Image.open, whose limit of pixels is one for the process.
_PILLOW: dict[str, type[ImageFile.ImageFile]] = {
    'JPEG': JpegImagePlugin.JpegImageFile,  # of few files, see `jpeg.stored_shape`
    'PNG': PngImagePlugin.PngImageFile,
    'WebP': WebPImagePlugin.WebPImageFile,
    'GIF': GifImagePlugin.GifImageFile,
    'BMP': BmpImagePlugin.BmpImageFile,
    'TIFF': TiffImagePlugin.TiffImageFile,
}
if features.check('avif'):
    from PIL import AvifImagePlugin

    _PILLOW['AVIF'] = AvifImagePlugin.AvifImageFile
warnings.filterwarnings('ignore', module=r'PIL\.')  # about damaged files: errors say enough

_MAX_SIDE = 2**16 - 1  # a JPEG's
_JPEG_END, _TAIL = b'\xff\xd9', 64  # bytes that most files end within
TRUNCATED = 'It is truncated.'
_ROWS = 64  # composited at a time
# Pixels of blocks that a JPEG does not hold, from RGB or gray and from CMYK.
_MISSING = {bytes([level] * 3) for level in (128, 64, 63)}


def decode_image(file: bytes | np.ndarray, dataset: ConfigDict) -> np.ndarray:
    """Decodes a file exactly: first frame, rotated by Exif, composited on white.

    Gray, CMYK and palettes become RGB; of 16 bits the upper 8 count. Color profiles are ignored.

    Args:
      file: JPEG, PNG, WebP, GIF, BMP, TIFF, or AVIF if Pillow was built with it; or pixels uint8
        [H, W, 3], which are returned.
      dataset: `config.dataset`; reads `max_image_bytes` and `max_image_pixels`.

    Returns:
      uint8 [H, W, 3].

    Raises:
      BadImageError: it cannot be decoded or exceeds a limit.
    """
    if isinstance(file, np.ndarray):
        return file
    kind = _format(file, dataset)
    try:
        if kind == 'JPEG':
            return _decode_jpeg(file, dataset)
        return _decode_by_pillow(file, kind, dataset)
    except BadImageError:
        raise
    except Exception as error:  # Pillow raises all kinds
        raise BadImageError(
            f'It cannot be decoded as {kind}: {reason(error).rstrip(".")}.'
        ) from error


def image_shape(file: bytes, dataset: ConfigDict) -> tuple[int, int]:
    """Reads the height and width of the image that `decode_image` returns, without decoding it.

    Raises:
      BadImageError: it cannot be read or exceeds a limit.
    """
    kind = _format(file, dataset)
    try:
        if kind == 'JPEG' and (stored := jpeg.stored_shape(file)):
            sides, tag = stored, jpeg_segments.orientation(file)
        else:
            image = _open(file, kind, dataset)
            sides, tag = (image.height, image.width), _orientation(image)
    except BadImageError:
        raise
    except Exception as error:  # Pillow raises all kinds
        raise BadImageError(f'It cannot be read as {kind}: {reason(error).rstrip(".")}.') from error
    check_pixels(*sides, dataset)
    return sides[::-1] if tag >= 5 else sides


def check_bytes(file: bytes, dataset: ConfigDict) -> None:
    """Raises TooLargeError if a file is too large."""
    most = dataset.max_image_bytes
    if len(file) > most:
        raise TooLargeError(f'It has over {most:,} bytes, dataset.max_image_bytes.')


def check_pixels(height: int, width: int, dataset: ConfigDict) -> None:
    """Raises TooLargeError if an image is too large or empty."""
    pixels, side = height * width, max(height, width)
    if not 0 < pixels <= dataset.max_image_pixels:
        raise TooLargeError(
            f'It has {pixels:,} pixels; dataset.max_image_pixels is {dataset.max_image_pixels:,}.'
        )
    if side > _MAX_SIDE:
        raise TooLargeError(f'It is {side:,} pixels long; at most are {_MAX_SIDE:,}.')


def may_end_early(part: np.ndarray) -> bool:
    """Whether a part of a JPEG, as stored, may be where its data ended: the last pixel is gray."""
    return part[-1, -1].tobytes() in _MISSING


def reason(error: Exception, file: bytes | np.ndarray = b'') -> str:
    """Why `file` cannot be decoded, on one line: truncated, or the error of its decoder."""
    if (
        not isinstance(error, TooLargeError)
        and isinstance(file, bytes)
        and formats.image_format(file) == 'JPEG'
        and not (jpeg_segments.has_end(file) and jpeg_segments.has_all_scans(file))
    ):
        return TRUNCATED
    return ' '.join(str(error).split())[:200] or type(error).__name__


def _format(file: bytes, dataset: ConfigDict) -> str:
    check_bytes(file, dataset)
    kind = formats.image_format(file)
    if not file:
        raise BadImageError('The file is empty.')
    if kind is None or (kind == 'AVIF' and kind not in _PILLOW):
        hint = ' HEIC, as of phones, must be converted.' if b'ftyphei' in file[:16] else ''
        known = ', '.join(_PILLOW)
        raise BadImageError(f'It is none of {known}: it begins with {file[:16]!r}.{hint}')
    return kind


def _decode_jpeg(file: bytes, dataset: ConfigDict) -> np.ndarray:
    has_end = _JPEG_END in file[-_TAIL:] or jpeg_segments.has_end(file)
    if not has_end or not jpeg_segments.has_all_scans(file):
        raise BadImageError(TRUNCATED)
    image = _decode_stored(file, dataset)
    if may_end_early(image):
        again = _decode_stored(jpeg_segments.with_noise(file), dataset)
        if not np.array_equal(image, again):
            raise BadImageError(TRUNCATED)
    return upright(image, jpeg_segments.orientation(file))


def _decode_stored(file: bytes, dataset: ConfigDict) -> np.ndarray:
    """Decodes a JPEG, not rotated."""
    sides = jpeg.stored_shape(file)
    if sides is None:
        with _open(file, 'JPEG', dataset) as image:
            return np.asarray(image.convert('RGB'))
    check_pixels(*sides, dataset)
    return jpeg.decode(file)


def _decode_by_pillow(file: bytes, kind: str, dataset: ConfigDict) -> np.ndarray:
    with _open(file, kind, dataset) as image:
        image.load()
        check_pixels(image.height, image.width, dataset)
        if image.mode in ('I', 'F'):
            raise BadImageError(f'It is a {kind} of 32 bits a channel; 8 and 16 are decoded.')
        if image.mode.startswith('I;16'):
            levels = (np.asarray(image) >> 8).astype(np.uint8)
            return upright(np.repeat(levels[..., None], 3, axis=2), _orientation(image))
        mode = 'RGBA' if image.has_transparency_data else 'RGB'
        converted = image if image.mode == mode else image.convert(mode)
        return upright(_on_white(np.asarray(converted)), _orientation(image))


def _open(file: bytes, kind: str, dataset: ConfigDict) -> ImageFile.ImageFile:
    """Opens a file that is small enough, without its metadata."""
    if kind == 'PNG':
        file = formats.png_pixels(file)
    elif kind == 'WebP':  # Opening it allocates the image.
        check_pixels(*formats.webp_sides(file), dataset)
    elif kind == 'GIF':
        file = formats.gif_pixels(file)
    elif kind == 'TIFF':
        file = formats.tiff_pixels(file, dataset.max_image_pixels)
    elif kind == 'AVIF':
        file = formats.avif_pixels(file)
    image = _PILLOW[kind](io.BytesIO(file))
    check_pixels(image.height, image.width, dataset)
    return image


def _orientation(image: ImageFile.ImageFile) -> int:
    """The orientation that Pillow has not applied; it applies a TIFF's."""
    return formats.exif_orientation(image.info.get('exif', b''))


def _on_white(image: np.ndarray) -> np.ndarray:
    """Composites RGBA uint8 [H, W, 4] on white; returns RGB [H, W, 3], as it is if it is given."""
    if image.shape[2] == 3:
        return image
    out = np.ascontiguousarray(image[..., :3])
    for start in range(0, len(image), _ROWS):
        rows = slice(start, start + _ROWS)
        alpha = image[rows, :, 3:].astype(np.uint16)
        if (alpha < 255).any():
            out[rows] = (out[rows] * alpha + 255 * (255 - alpha) + 127) // 255
    return out
