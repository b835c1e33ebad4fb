"""Encoded images to uint8 [n, size, size, 3]: fast for training, exact for evaluation.

TensorFlow decodes (it alone decodes a part of a JPEG), many images a call, without Python's
lock; OpenCV resizes training crops, Pillow what has to be antialiased. docs/data.md says what
each choice costs and how far its result is from Pillow's.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict
from PIL import Image

from ssanet_jax.data import decoding, jpeg
from ssanet_jax.data.crops import center_window, crop_windows

_PIL = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
_CV2 = {'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}

_MAX_PIXELS_AT_ONCE = 2**26  # of whole images; more are decoded one by one

cv2.setNumThreads(1)  # images are resized in parallel, not rows of one


def random_crops(
    files: Sequence[bytes],
    key: np.ndarray,
    out: np.ndarray,
    dataset: ConfigDict,
    *,
    reduce: bool = True,
) -> dict[int, str]:
    """Random resized crops, mirrored or not, into `out`; a pure function of files and keys.

    JPEGs are decoded in the crop only, with the fast integer DCT and without smoothing the
    colour planes. A crop of at least twice the size of `out` is decoded at half (a quarter, an
    eighth) of its size, from the DCT's low frequencies, which antialiases it too.

    Args:
      files: their contents, JPEG or PNG whatever their names say, in any colours.
      key: int64 [n, 2], what each crop is drawn from.
      out: uint8 [n, size, size, 3], written.
      dataset: reads `crop_area`, `crop_aspect`, `flip`, `interpolation`, `antialias`,
        `max_image_pixels` and `max_image_bytes`.
      reduce: False decodes in full always, for comparison.

    Returns:
      {row: reason} of those that cannot be decoded, or are too large.
    """
    size = out.shape[1]

    def finish(crop: np.ndarray, row: int, mirror: bool) -> None:
        if dataset.antialias:
            out[row] = _pil_resize(crop, size, dataset.interpolation)
        else:
            cv2.resize(crop, (size, size), out[row], interpolation=_CV2[dataset.interpolation])
        if mirror and dataset.flip:
            cv2.flip(out[row], 1, out[row])

    def decode(rows: slice) -> None:
        crops, mirror = _decode_crops(files[rows], key[rows], size, dataset, reduce)
        for i, crop in enumerate(crops):
            finish(crop.numpy(), rows.start + i, mirror[i])

    def decode_png(row: int) -> None:
        image = decoding.decode_png(files[row], dataset)
        uniforms = jpeg.uniforms(key[row]).numpy()[None]
        sides = np.array([image.shape[:2]])
        window = crop_windows(sides, uniforms[:, 1:], dataset.crop_area, dataset.crop_aspect)
        top, left, height, width = window[0]
        crop = image[top : top + height, left : left + width]
        finish(np.ascontiguousarray(crop), row, uniforms[0, 0] < 0.5)

    return decoding.in_groups(files, out, dataset, decode, decode_png)


def decode_only(
    files: Sequence[bytes], key: np.ndarray, out: np.ndarray, dataset: ConfigDict
) -> dict[int, str]:
    """Decodes the crops of `random_crops` and drops them: to measure what the rest costs."""

    def decode(rows: slice) -> None:
        _decode_crops(files[rows], key[rows], out.shape[1], dataset)

    return decoding.in_groups(
        files, out, dataset, decode, lambda row: decoding.decode_png(files[row], dataset)
    )


def _decode_crops(
    files: Sequence[bytes], key: np.ndarray, size: int, dataset: ConfigDict, reduce: bool = True
) -> tuple[list[tf.Tensor], np.ndarray]:
    """Crops of JPEGs, not yet resized, and which of them are to be mirrored."""
    encoded = tf.constant(files)
    sides, uniforms = (x.numpy() for x in jpeg.draw(len(files))(encoded, key))
    decoding.check_pixels(sides, dataset)
    window = crop_windows(sides, uniforms[:, 1:], dataset.crop_area, dataset.crop_aspect)
    times = np.clip(window[:, 2:].min(axis=1) // size, 1, 8 if reduce else 1)
    halvings = np.log2(times).astype(np.int32)
    window >>= halvings[:, None]
    return jpeg.decode_windows(len(files))(encoded, window, halvings), uniforms[:, 0] < 0.5


def center_crops(
    files: Sequence[bytes], key: np.ndarray, out: np.ndarray, dataset: ConfigDict
) -> dict[int, str]:
    """The centres of images into `out`, decoded exactly and antialiased; `key` is ignored.

    As torchvision's Resize(size / eval_crop_pct) of the short side, CenterCrop(size)
    do it with Pillow. Arguments and result as `random_crops`.
    """
    size = out.shape[1]

    def finish(image: np.ndarray, row: int) -> None:
        (top, left), (bottom, right) = center_window(image.shape[:2], size, dataset.eval_crop_pct)
        out[row] = _pil_resize(image, size, dataset.interpolation, (left, top, right, bottom))

    def decode(rows: slice) -> None:
        encoded = tf.constant(files[rows])
        sides = jpeg.sides(len(encoded))(encoded).numpy()
        decoding.check_pixels(sides, dataset)
        few = sides.prod(axis=1, dtype=np.int64).sum() <= _MAX_PIXELS_AT_ONCE
        step = len(encoded) if few else 1
        for start in range(0, len(encoded), step):
            whole = jpeg.decode_whole(step)(encoded[start : start + step])
            for i, image in enumerate(whole):
                finish(image.numpy(), rows.start + start + i)

    def decode_png(row: int) -> None:
        finish(decoding.decode_png(files[row], dataset), row)

    return decoding.in_groups(files, out, dataset, decode, decode_png)


def whole_images(
    files: Sequence[bytes], key: np.ndarray, out: np.ndarray, dataset: ConfigDict
) -> dict[int, str]:
    """All of each image into `out`, as `memory.load_split` does it; the arguments as above."""

    def decode(rows: slice) -> None:
        for row in range(rows.start, rows.stop):
            encoded = tf.constant(files[row : row + 1])
            decoding.check_pixels(jpeg.sides(1)(encoded).numpy(), dataset)
            out[row] = decoding.fit(jpeg.decode_whole(1)(encoded)[0], out.shape[1])

    def decode_png(row: int) -> None:
        out[row] = decoding.fit(tf.constant(decoding.decode_png(files[row], dataset)), out.shape[1])

    return decoding.in_groups(files, out, dataset, decode, decode_png)


def _pil_resize(
    image: np.ndarray,
    size: int,
    interpolation: str,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), _PIL[interpolation], box))
