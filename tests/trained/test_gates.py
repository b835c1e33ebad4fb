"""Gates of runs: which images count, and how some are chosen."""

import jax
import numpy as np
import pytest

from ssanet_jax import create_model, feature_maps
from ssanet_jax.config import base
from ssanet_jax.trained import gates
from ssanet_jax.trained.ablation import evaluations
from ssanet_jax.trained.load import TrainedModel


def test_some_images_are_spread_over_the_split():
    """Of 23 images in padded batches of 5."""
    batches = []
    for start in range(0, 23, 5):
        number = start + np.arange(5)
        batches.append({'image': number, 'mask': number < 23})
    for count in (1, 7, 22, 23, 40):
        found = gates.evenly(batches, count, 23)
        assert {len(b['image']) for b in found} == {5}
        chosen = np.concatenate([b['image'][b['mask']] for b in found])
        assert len(chosen) == min(count, 23)
        gaps = np.diff([0, *chosen + 1, 23 + 1])
        assert gaps.min() >= 1
        assert gaps.max() <= -(-23 // count) + 1
    assert len(gates.evenly(batches, 7, 23)) == 2


@pytest.fixture(scope='module')
def run():
    """Two gates, of any weights."""
    model = create_model('ssa_resnet20', num_classes=3, stage_sizes=(1, 1))
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), train=False)
    )
    rng = np.random.default_rng(0)

    def weights(path, leaf):
        value = rng.normal(size=leaf.shape, scale=0.2)
        return (np.abs(value) if path[-1].key == 'var' else value).astype(leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(weights, shapes)
    return TrainedModel(base(), model, variables, 0, ('a', 'b', 'c'))


def test_what_cannot_be_decoded_is_in_no_statistic_and_wrong_in_evaluation(run):
    """13 images in two batches, of which three are black and without a label."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (16, 8, 8, 3), np.uint8)
    label, mask = rng.integers(0, 3, 16), np.arange(16) < 13
    image[[2, 5, 11]], label[[2, 5, 11]] = 0, -1
    arrays = {'image': image, 'label': label.astype(np.int32), 'mask': mask}
    batches = [
        {name: array[rows] for name, array in arrays.items()} for rows in np.split(np.arange(16), 2)
    ]

    found = gates.statistics_of(run, batches)
    shown = run.preprocess(image[mask & (label >= 0)])
    maps = feature_maps(run.model, run.variables, shown, ['*/ssa/gate'])
    assert [f'{name}/gate' for name in found] == list(maps)
    for gate, values in zip(found.values(), maps.values(), strict=True):
        values = np.asarray(values, np.float64)
        assert gate.images == len(values) == 10
        assert gate.mean == pytest.approx(values.mean(), rel=1e-5)
        assert values.std() > 0.01
        assert gate.std == pytest.approx(values.std(), rel=1e-3)
        assert gate.image_std == pytest.approx(values.mean(axis=(1, 2)).std(), rel=1e-3)
        expected = np.histogram(values, 100, (0, 1))[0] / values.size
        np.testing.assert_allclose(gate.histogram, expected, atol=0.01)

    calls = []
    ablation = gates.knock_out_of(run, batches, found, lambda: calls.append(1))
    logits = run.model.apply(run.variables, run.preprocess(image[:13]), train=False)
    right = np.asarray(logits).argmax(axis=1) == label[:13]
    assert ablation.images == 13
    assert ablation.top1 == pytest.approx(100 * right.mean(), abs=1e-4)
    assert len(calls) == 2 * evaluations(found) == 2 * (1 + 3 * 3)
