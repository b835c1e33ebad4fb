"""The eight orientations of Exif: how viewers turn and mirror a stored image.

Tags 2 to 4 mirror it or turn it by 180 degrees; 5 to 8 exchange rows and columns too.
"""

import numpy as np

_FLIP_ROWS, _FLIP_COLUMNS = (3, 4, 7, 8), (2, 3, 6, 7)  # after rows and columns are exchanged


def upright(image: np.ndarray, tag: int) -> np.ndarray:
    """Turns a stored image [h, w, C] as its orientation says; returns [H, W, C]."""
    if tag == 1:
        return image
    if tag >= 5:
        image = image.swapaxes(0, 1)
    if tag in _FLIP_ROWS:
        image = image[::-1]
    if tag in _FLIP_COLUMNS:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def upright_sides(sides: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Heights and widths [n, 2] of upright images from those of stored ones [n, 2]."""
    return np.where(tags[:, None] >= 5, sides[:, ::-1], sides)


def stored_windows(windows: np.ndarray, sides: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Finds the parts of stored images that become `windows` of the upright ones.

    Args:
      windows: [n, 4], (top, left, height, width) in upright images.
      sides: height and width [n, 2] of the upright images.
      tags: orientations [n].
    """
    corner, size = windows[:, :2], windows[:, 2:]
    flips = np.stack([np.isin(tags, _FLIP_ROWS), np.isin(tags, _FLIP_COLUMNS)], axis=1)
    corner = np.where(flips, sides - corner - size, corner)
    exchanged = np.where(tags[:, None] >= 5, [1, 0, 3, 2], [0, 1, 2, 3])
    return np.take_along_axis(np.concatenate([corner, size], axis=1), exchanged, axis=1)
