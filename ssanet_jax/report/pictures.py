"""Images of the data as small pictures in a page."""

import base64
import io

import numpy as np
from PIL import Image

_PIXELS = 112  # height and width, at most


def picture(image: np.ndarray) -> str:
    """A data URI of an image uint8 [H, W, 3]: PNG as it is, or JPEG where it has to be reduced."""
    made, file = Image.fromarray(image), io.BytesIO()
    if max(made.size) <= _PIXELS:
        made.save(file, 'png', optimize=True)
        kind = 'png'
    else:
        made.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
        made.save(file, 'jpeg', quality=85)
        kind = 'jpeg'
    return f'data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}'
