"""Thumbnails of images as data URIs."""

import base64
import io

import numpy as np
from PIL import Image

_MAX_SIZE = 112  # pixels


def thumbnail(image: np.ndarray) -> str:
    """A data URI of an image uint8 [H, W, 3]: lossless PNG, or JPEG if it must be reduced."""
    thumb, file = Image.fromarray(image), io.BytesIO()
    if max(thumb.size) <= _MAX_SIZE:
        thumb.save(file, 'png', optimize=True)
        kind = 'png'
    else:
        thumb.thumbnail((_MAX_SIZE, _MAX_SIZE), Image.Resampling.LANCZOS)
        thumb.save(file, 'jpeg', quality=85)
        kind = 'jpeg'
    return f'data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}'
