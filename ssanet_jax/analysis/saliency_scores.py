"""How well maps point at what is in an image: the pointing game and the share in a box."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from ssanet_jax.analysis.saliency import rescale, resize


def pointing_game(maps: np.ndarray, masks: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Whether the largest value of each map is in its region (Zhang et al. 2016).

    https://arxiv.org/abs/1608.00507, whose measure is the mean of this, over images or over
    classes. Of several largest values one is drawn at random there, so to speak: the result is the
    share of them that is in the region, which for a map that is the same everywhere is the
    region's share of the area.

    Args:
      maps: [N, H, W].
      masks: bool [N, H, W], where the region is; `box_mask` makes them of boxes.
      tolerance: pixels by which a region may be missed; the paper has 15 on photographs.

    Returns:
      Float64 [N], 1 for a hit.

    Raises:
      ValueError: shapes do not fit, or a region has no pixel.
    """
    _check(masks, np.shape(maps))
    hits = []
    for values, mask in zip(maps, masks, strict=True):
        near = scipy.ndimage.distance_transform_edt(~mask) <= tolerance
        hits.append(np.mean(near[values == values.max()]))
    return np.array(hits)


def energy_in_box(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of each map's sum that is in its region (Wang et al. 2020).

    The energy-based pointing game of Score-CAM, https://arxiv.org/abs/1910.01279. A map that is 0
    everywhere counts as one that is the same everywhere.

    Args:
      maps: [N, H, W], not negative; see `saliency.rescale`.
      masks: as for `pointing_game`.

    Returns:
      Float64 [N], from 0 to 1.

    Raises:
      ValueError: shapes do not fit, a region has no pixel, or a value is negative.
    """
    maps = np.asarray(maps, np.float64)
    if not np.all(maps >= 0):
        raise ValueError(
            f'energy_in_box adds values from 0 up, got {np.min(maps):.3g}; rescale() the maps.'
        )
    _check(masks, maps.shape)
    shares = []
    for values, mask in zip(maps, masks, strict=True):
        values = values if values.any() else np.ones_like(values)
        shares.append(values[mask].sum() / values.sum())
    return np.array(shares)


def _check(masks: np.ndarray, shape: tuple[int, ...]) -> None:
    if masks.dtype != bool or masks.shape != shape:
        raise ValueError(
            f'Maps {shape} need bool masks of that shape, got {masks.dtype} {masks.shape}.'
        )
    for number, mask in enumerate(masks):
        if not mask.any():
            raise ValueError(f'The region of map {number} has no pixel in {shape[1:]}; omit it.')


def box_mask(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bool [height, width]: the pixels whose middle is in one of the boxes.

    Args:
      boxes: [n, 4], (top, left, bottom, right) in pixels.
      height, width: of the mask.
    """
    rows, columns = (np.arange(size) + 0.5 for size in (height, width))
    top, left, bottom, right = np.asarray(boxes)[:, :, None].swapaxes(0, 1)  # [n, 1] each
    inside_rows = (top <= rows) & (rows < bottom)  # [n, height]
    inside_columns = (left <= columns) & (columns < right)  # [n, width]
    return np.any(inside_rows[:, :, None] & inside_columns[:, None], axis=0)


class Score(NamedTuple):
    """What `pointing_game` and `energy_in_box` say of a map; the second only of rescaled maps."""

    hit: float
    energy: float | None


def localization(
    maps: Mapping[str, np.ndarray], mask: np.ndarray, tolerance: float = 0.0
) -> dict[str, Score]:
    """Scores of one image's maps, and of two that know nothing of it.

    Args:
      maps: {'stage1': [h, w], ...} of any sizes; resized to the mask bilinearly, and rescaled.
      mask: bool [H, W], where in the image the thing is.
      tolerance: of the pointing game.

    Returns:
      {'stage1': ..., 'centre': ..., 'uniform': ...}: those of the maps, of the middle of the
      image, and of a map that is the same everywhere, which are the mask's share of the area.
    """
    height, width = mask.shape

    def enlarged(value: np.ndarray) -> np.ndarray:
        return np.asarray(resize(jnp.asarray(value)[None], height, width))[0]

    everything = {
        **{name: enlarged(value) for name, value in maps.items()},
        'centre': _centre(height, width),
        'uniform': np.ones(mask.shape),
    }
    scores = {}
    for name, value in everything.items():
        hit = pointing_game(value[None], mask[None], tolerance)[0]
        energy = energy_in_box(rescale(value)[None], mask[None])[0]
        scores[name] = Score(float(hit), None if name == 'centre' else float(energy))
    return scores


def mean_scores(scores: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """Means over images of what `localization` gives; nothing of none."""
    return {
        name: Score(
            float(np.mean([score[name].hit for score in scores])),
            None
            if scores[0][name].energy is None
            else float(np.mean([score[name].energy for score in scores])),
        )
        for name in (scores[0] if scores else ())
    }


def _centre(height: int, width: int) -> np.ndarray:
    """1 at the pixel in the middle, or at the two or four around it."""
    rows, columns = (np.abs(np.arange(n) - (n - 1) / 2) < 1 for n in (height, width))
    return np.outer(rows, columns).astype(np.float64)
