"""Scores of maps against loops, and boxes against images transformed by evaluation."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from ssanet_jax import data
from ssanet_jax.analysis.saliency_scores import (
    box_mask,
    energy_in_box,
    localization,
    mean_scores,
    pointing_game,
)
from ssanet_jax.config import base
from ssanet_jax.errors import ConfigError
from ssanet_jax.trained import saliency_boxes


def random_boxes(rng, size):
    corners = np.sort(rng.uniform(-1, size + 1, (3, 2, 2)), axis=1)  # [n, (first, last), (y, x)]
    return [[*first, *last] for first, last in corners]


def inside(boxes, y, x):
    return any(a <= y + 0.5 < c and b <= x + 0.5 < d for a, b, c, d in boxes)


def masks_of(boxes, height, width):
    return np.stack([box_mask(np.array(some), height, width) for some in boxes])


@pytest.mark.parametrize('tolerance', [0, 1, 2.5])
def test_the_pointing_game_is_a_hit_if_the_maximum_is_near_a_box(tolerance):
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(40, 9, 11))
    boxes = [random_boxes(rng, 9)[:1] for _ in maps]
    boxes = [b if any(inside(b, *p) for p in np.ndindex(9, 11)) else [[0, 0, 2, 2]] for b in boxes]
    expected = []
    for values, some in zip(maps, boxes, strict=True):
        best = max(np.ndindex(9, 11), key=lambda place, v=values: v[place])
        near = [p for p in np.ndindex(9, 11) if math.dist(p, best) <= tolerance]
        expected.append(any(inside(some, *p) for p in near))
    assert 0 < sum(expected) < 40
    np.testing.assert_array_equal(pointing_game(maps, masks_of(boxes, 9, 11), tolerance), expected)


def test_a_repeated_maximum_counts_by_its_share_in_the_box():
    values = np.zeros((1, 4, 4))
    values[0, 1, 1] = values[0, 1, 2] = values[0, 3, 3] = 2
    corner, wider = masks_of([[[0, 0, 2, 2]], [[0, 0, 2, 3]]], 4, 4)
    assert pointing_game(values, corner[None]) == pytest.approx(1 / 3)
    assert pointing_game(np.ones((1, 4, 4)), wider[None]) == pytest.approx(6 / 16)


def test_the_energy_is_the_share_of_the_sum_in_boxes():
    rng = np.random.default_rng(4)
    maps = rng.uniform(size=(20, 7, 7))
    boxes = [[*random_boxes(rng, 7), [0, 0, 1, 1]] for _ in maps]
    expected = []
    for values, some in zip(maps, boxes, strict=True):
        total = within = 0.0
        for place in np.ndindex(7, 7):
            total += values[place]
            within += values[place] if inside(some, *place) else 0
        expected.append(within / total)
    np.testing.assert_allclose(energy_in_box(maps, masks_of(boxes, 7, 7)), expected, rtol=1e-12)


def test_a_map_without_energy_counts_as_uniform():
    row = masks_of([[[0, 0, 4, 1]]], 4, 4)
    assert energy_in_box(np.zeros((1, 4, 4)), row) == pytest.approx(1 / 4)


@pytest.mark.parametrize('score', [pointing_game, energy_in_box])
@pytest.mark.parametrize(
    ('masks', 'message'),
    [
        (np.ones((1, 4, 4), bool), r'Maps \(2, 4, 4\) need bool masks of that shape'),
        (np.ones((2, 4, 5), bool), r'got bool \(2, 4, 5\)'),
        (np.ones((2, 4, 4)), 'got float64'),
        (np.arange(2)[:, None, None] < np.ones((2, 4, 4)), 'region of map 1 has no pixel'),
    ],
    ids=['count', 'shape', 'dtype', 'empty'],
)
def test_invalid_masks_are_refused(score, masks, message):
    with pytest.raises(ValueError, match=message):
        score(np.ones((2, 4, 4)), masks)


def test_negative_maps_are_refused():
    with pytest.raises(ValueError, match=r'got -1; rescale\(\)'):
        energy_in_box(-np.ones((1, 4, 4)), np.ones((1, 4, 4), bool))


def test_localization_takes_maps_of_any_size_and_adds_two_baselines():
    corner = np.array([[4.0, 1.0], [1.0, 1.0]], np.float32)
    mask = np.zeros((8, 8), bool)
    mask[:4, :4] = True
    scores = localization({'corner': corner, 'flat': np.ones((2, 2), np.float32)}, mask)
    assert scores['corner'].hit == 1
    assert scores['corner'].energy > 0.6
    for name in ('flat', 'uniform'):
        assert scores[name] == (0.25, 0.25)
    assert scores['center'] == (0.25, None)  # one of the four pixels around the middle
    odd = localization({}, np.pad(np.ones((1, 1), bool), 2))
    assert odd == {'center': (1, None), 'uniform': (1 / 25, pytest.approx(1 / 25))}
    means = mean_scores([scores, {**scores, 'corner': (0, 0)} | {'corner': scores['flat']}])
    assert means['corner'].hit == pytest.approx((1 + 0.25) / 2)
    assert means['center'] == (0.25, None)
    assert mean_scores([]) == {}


def dataset(eval_crop, size=48):
    config = base().dataset
    config.eval_crop, config.image_size = eval_crop, size
    return config


def encoded(image, form):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, quality=100, subsampling=0)
    return file.getvalue()


@pytest.mark.parametrize('eval_crop', ['center', 'whole'])
@pytest.mark.parametrize(
    ('height', 'width'), [(90, 120), (301, 200), (40, 40), (61, 203), (48, 48), (55, 57)]
)
def test_boxes_move_with_the_pixels_in_evaluation(eval_crop, height, width):
    config = dataset(eval_crop)
    box = [0.25 * height, 0.3 * width, 0.7 * height, 0.65 * width]
    top, left, bottom, right = map(round, box)
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    files = [encoded(image, 'png'), encoded(image, 'jpeg')]
    assert [saliency_boxes.image_shape(file, config) for file in files] == [(height, width)] * 2
    boxes = np.array([[top, left, bottom, right]], float)
    mask = saliency_boxes.to_evaluation(boxes, height, width, config)
    (batch,) = data.file_batches(files, config, 2)
    for shown in batch.image.mean(axis=-1):
        assert np.all(mask[shown > 160])
        assert not np.any(mask[shown < 50])
        assert mask.sum() == pytest.approx((shown / 255).sum(), rel=0.06)


def test_boxes_outside_of_the_crop_have_no_mask():
    boxes = np.array([[0.0, 0, 90, 10]])
    assert saliency_boxes.to_evaluation(boxes, 90, 200, dataset('center')) is None
    assert saliency_boxes.to_evaluation(boxes, 90, 200, dataset('whole')).sum() == 48 * 2
    assert (
        saliency_boxes.to_evaluation(np.array([[3.0, 3, 3.1, 3.1]]), 90, 200, dataset('whole'))
        is None
    )


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"a.png": [[0, 0, 1, 1]', 'cannot be read'),
        ('[[0, 0, 1, 1]]', 'got a list'),
        ('{"a.png": []}', r"'a.png': expected a list of boxes .* got \[\]"),
        ('{"a.png": [0, 0, 1, 1]}', 'got 0'),
        ('{"a.png": [[0, 0, 1]]}', 'expected a list of boxes'),
        ('{"a.png": [[0, 0, 1, "1"]]}', 'expected a list of boxes'),
        ('{"a.png": [[0, 0, 1, NaN]]}', 'expected a list of boxes'),
        ('{"a.png": [[0, 0, 1, true]]}', 'expected a list of boxes'),
        (f'{{"a.png": [[0, 0, 1, 1{"0" * 400}]]}}', 'expected a list of boxes'),
        ('{"a.png": [[5, 0, 1, 1]]}', 'top < bottom'),
    ],
    ids=range(10),
)
def test_malformed_boxes_are_refused(tmp_path, content, message):
    path = tmp_path / 'boxes.json'
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        saliency_boxes.read_boxes(path)


def test_boxes_are_found_by_path_before_name(tmp_path):
    first, second, third = (tmp_path / name for name in ('x/1.png', 'y/1.png', 'y/2.png'))
    path = tmp_path / 'boxes.json'
    one, two = [[0, 0, 1, 1]], [[2, 2, 3, 3], [0, 0, 9.5, 9]]
    path.write_text(json.dumps({str(first): one, '1.png': two, '-': one}))
    boxes = saliency_boxes.read_boxes(path)
    found = saliency_boxes.boxes_by_file(boxes, [first, second, third, b'image'])
    assert [b if b is None else b.tolist() for b in found] == [one, two, None, one]
    with pytest.raises(ConfigError, match='name the boxes by full path'):
        saliency_boxes.boxes_by_file({'1.png': found[0]}, [first, second])
    with pytest.raises(ConfigError, match='None of the 1 images has boxes'):
        saliency_boxes.boxes_by_file(boxes, [third])
