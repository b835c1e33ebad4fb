"""Localization scores of saliency maps: the pointing game and the energy in a box."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from ssanet_jax.analysis.saliency import rescale, resize


def pointing_game(maps: np.ndarray, masks: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Whether the maximum of each map is in its region (Zhang et al. 2016).

    The score of https://arxiv.org/abs/1608.00507 is the mean of this over images or classes. If
    the maximum is reached several times, returns the share of these pixels in the region, which
    for a constant map is the region's share of the area.

    Args:
      maps: [N, H, W].
      masks: bool [N, H, W], True in the region; see `box_mask`.
      tolerance: distance in pixels that still counts as a hit; the paper uses 15 on photographs.

    Returns:
      Float64 [N], 1 for a hit.

    Raises:
      ValueError: the shapes do not fit, or a region has no pixel.
    """
    _check(masks, np.shape(maps))
    hits = []
    for values, mask in zip(maps, masks, strict=True):
        near = scipy.ndimage.distance_transform_edt(~mask) <= tolerance
        hits.append(np.mean(near[values == values.max()]))
    return np.array(hits)


def energy_in_box(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of each map's sum inside its region (Wang et al. 2020).

    The energy-based pointing game of Score-CAM, https://arxiv.org/abs/1910.01279. A map of zeros
    counts as constant.

    Args:
      maps: [N, H, W], nonnegative; see `saliency.rescale`.
      masks: as for `pointing_game`.

    Returns:
      Float64 [N], from 0 to 1.

    Raises:
      ValueError: the shapes do not fit, a region has no pixel, or a value is negative.
    """
    maps = np.asarray(maps, np.float64)
    if not np.all(maps >= 0):
        raise ValueError(
            f'energy_in_box expects nonnegative maps, got {np.min(maps):.3g}; rescale() them.'
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
    """Bool [height, width]: the pixels whose center is in one of the boxes.

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
    """The `pointing_game` and `energy_in_box` scores of a map; None for a map without an energy."""

    hit: float
    energy: float | None


def localization(
    maps: Mapping[str, np.ndarray], mask: np.ndarray, tolerance: float = 0.0
) -> dict[str, Score]:
    """Scores of one image's maps and of two baselines.

    Args:
      maps: {'stage1': [h, w], ...} of any size; resized bilinearly to the mask and rescaled.
      mask: bool [H, W], True on the object.
      tolerance: of the pointing game.

    Returns:
      {'stage1': ..., 'center': ..., 'uniform': ...}: scores of the maps, of the center of the
      image, and of a constant map, which equals the mask's share of the area.
    """
    height, width = mask.shape

    def enlarged(value: np.ndarray) -> np.ndarray:
        return np.asarray(resize(jnp.asarray(value)[None], height, width))[0]

    everything = {
        **{name: enlarged(value) for name, value in maps.items()},
        'center': _center(height, width),
        'uniform': np.ones(mask.shape),
    }
    scores = {}
    for name, value in everything.items():
        hit = pointing_game(value[None], mask[None], tolerance)[0]
        energy = energy_in_box(rescale(value)[None], mask[None])[0]
        scores[name] = Score(float(hit), None if name == 'center' else float(energy))
    return scores


def mean_scores(scores: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """Means over images of the scores of `localization`; {} for no image."""
    return {
        name: Score(
            float(np.mean([score[name].hit for score in scores])),
            None
            if scores[0][name].energy is None
            else float(np.mean([score[name].energy for score in scores])),
        )
        for name in (scores[0] if scores else ())
    }


def _center(height: int, width: int) -> np.ndarray:
    """1 at the central pixel, or at the two or four central ones."""
    rows, columns = (np.abs(np.arange(n) - (n - 1) / 2) < 1 for n in (height, width))
    return np.outer(rows, columns).astype(np.float64)
