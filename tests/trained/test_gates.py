"""Gates of trained models: which images count, and how they are subsampled."""

import jax
import numpy as np
import pytest

from ssanet_jax import analysis, create_model, feature_maps
from ssanet_jax.config import base
from ssanet_jax.trained import ablation, gates
from ssanet_jax.trained.ablation import evaluations
from ssanet_jax.trained.load import TrainedModel


def test_a_subsample_is_evenly_spaced():
    """Of 23 images in padded batches of 5."""
    batches = []
    for start in range(0, 23, 5):
        number = start + np.arange(5)
        batches.append({'image': number, 'mask': number < 23})
    for count in (1, 7, 22, 23, 40):
        found = gates.subsample(batches, count, 23)
        assert {len(b['image']) for b in found} == {5}
        chosen = np.concatenate([b['image'][b['mask']] for b in found])
        assert len(chosen) == min(count, 23)
        gaps = np.diff([0, *chosen + 1, 23 + 1])
        assert gaps.min() >= 1
        assert gaps.max() <= -(-23 // count) + 1
    assert len(gates.subsample(batches, 7, 23)) == 2


@pytest.fixture(scope='module')
def trained():
    """A network with two gates and random weights."""
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


def test_undecodable_images_are_in_no_statistic_and_incorrect_in_evaluation(trained):
    """13 images in two batches; three of them are black and have no label."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (16, 8, 8, 3), np.uint8)
    label, mask = rng.integers(0, 3, 16), np.arange(16) < 13
    image[[2, 5, 11]], label[[2, 5, 11]] = 0, -1
    arrays = {'image': image, 'label': label.astype(np.int32), 'mask': mask}
    batches = [
        {name: array[rows] for name, array in arrays.items()} for rows in np.split(np.arange(16), 2)
    ]

    found = gates.statistics_of(trained, batches)
    shown = trained.preprocess(image[mask & (label >= 0)])
    maps = feature_maps(trained.model, trained.variables, shown, ['*/ssa/gate'])
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
    changes = gates.ablation_of(trained, batches, found, lambda: calls.append(1))
    logits = trained.model.apply(trained.variables, trained.preprocess(image[:13]), train=False)
    correct = np.asarray(logits).argmax(axis=1) == label[:13]
    assert changes.images == 13
    assert changes.top1 == pytest.approx(100 * correct.mean(), abs=1e-4)
    assert len(calls) == 2 * evaluations(found) == 2 * (1 + 3 * 3)


def test_repeated_calls_compile_once(trained):
    image = np.zeros((8, 8, 8, 3), np.uint8)
    batch = {'image': image, 'label': np.zeros(8, np.int32), 'mask': np.ones(8, bool)}

    def analyze():
        found = gates.statistics_of(trained, [batch])
        gates.ablation_of(trained, [batch], found)
        return analysis.gates._tally_batch._cache_size(), ablation._evaluate._cache_size()

    assert analyze() == analyze()
