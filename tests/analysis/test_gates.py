import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ssanet_jax import SSABlock, create_model, feature_maps, fold_batch_norm
from ssanet_jax.analysis.gates import GateShape, find_gates, gate_statistics
from ssanet_jax.training.parallel import to_devices
from tests.helpers import mesh_of


class Sown(nn.Module):
    """A block that sows some of its input channels as its gate."""

    channels: tuple[int, ...]
    pixels: bool = True

    def __call__(self, x):
        gate = x[..., list(self.channels)]
        self.sow('intermediates', 'gate', gate if self.pixels else gate[:, :1, :1])
        return x


class Toy(nn.Module):
    """Sows the image [N, H, W, 3] as two gates: two maps, then one value per channel."""

    @nn.compact
    def __call__(self, x, *, train):
        x = Sown((0, 2), name='maps')(x)
        x = Sown((0, 1, 2), pixels=False, name='channels')(x)
        return jnp.mean(x, axis=(1, 2))


def gates_of(images, **options):
    return gate_statistics(Toy(), {}, np.asarray(images, np.float32), **options)


def random_images(n, size=4, seed=0):
    return np.random.default_rng(seed).beta(0.4, 0.5, (n, size, size, 3)).astype(np.float32)


def expected_statistics(gate):
    """Statistics of a gate [N, h, w, maps], computed value by value in float64."""
    values = [float(v) for v in gate.flatten()]
    maps = [gate[n, :, :, k].astype(np.float64) for n, k in np.ndindex(len(gate), gate.shape[3])]
    centers = gate.astype(np.float64).mean(axis=(1, 2))
    entropies = [scipy.stats.entropy(m.flatten()) / math.log(m.size) for m in maps if m.size > 1]
    return {
        'mean': sum(values) / len(values),
        'std': float(np.std(gate.astype(np.float64))),
        'spatial_std': np.mean([m.std() for m in maps]) if entropies else None,
        'image_std': math.sqrt(np.mean([np.var(centers[:, k]) for k in range(gate.shape[3])])),
        'low': sum(v < 0.05 for v in values) / len(values),
        'high': sum(v > 0.95 for v in values) / len(values),
        'entropy': np.mean(entropies) if entropies else None,
    }


def assert_statistics(found, gate):
    expected = expected_statistics(gate)
    scalars = {name: value for name, value in expected.items() if value is not None}
    assert found.scalars() == pytest.approx(scalars, rel=1e-5, abs=1e-6)
    assert [name for name in expected if getattr(found, name) is None] == [
        name for name, value in expected.items() if value is None
    ]
    np.testing.assert_allclose(found.map_means, gate.mean(axis=(0, 1, 2)), rtol=1e-5)
    assert (found.images, found.shape) == (len(gate), GateShape(*gate.shape[1:], 1.0))


def test_each_number_is_that_of_a_loop_over_the_values():
    images = random_images(7)
    found = gates_of(images, bins=10)
    assert list(found) == ['maps', 'channels']
    assert_statistics(found['maps'], images[..., [0, 2]])
    assert_statistics(found['channels'], images[:, :1, :1])
    counts, _ = np.histogram(images[..., [0, 2]], 10, (0, 1))
    np.testing.assert_allclose(found['maps'].histogram, counts / counts.sum(), atol=1e-6)
    assert gates_of(images)['maps'].histogram is None


def test_every_image_counts_once_however_they_are_batched_and_padded():
    images = random_images(11)
    batches = []
    for start in range(0, 11, 4):
        image = np.full((4, 4, 4, 3), np.nan, np.float32)  # Padding may hold anything.
        part = images[start : start + 4]
        image[: len(part)] = part
        batches.append({'image': image, 'mask': np.arange(4) < len(part)})
    empty = {'image': images[:4], 'mask': np.zeros(4, bool)}
    found = gate_statistics(Toy(), {}, iter([empty, *batches, empty]), bins=5)
    assert_statistics(found['maps'], images[..., [0, 2]])
    assert_statistics(found['channels'], images[:, :1, :1])
    np.testing.assert_allclose(found['maps'].histogram, gates_of(images, bins=5)['maps'].histogram)


def test_eight_devices_agree_with_one():
    images = random_images(16)
    mask = np.arange(16) < 13
    (batch,) = to_devices([{'image': images, 'mask': mask}], mesh_of(8))
    assert len(batch['image'].sharding.device_set) == 8
    found = gate_statistics(Toy(), {}, [batch, batch])
    assert found['maps'].images == 26
    twice = np.concatenate([images[:13]] * 2)
    assert_statistics(found['maps'], twice[..., [0, 2]])


def test_small_spreads_around_large_means_are_not_rounded_away():
    noise = np.random.default_rng(0).normal(size=(50, 4, 4, 3))
    images = (0.99 + 2e-5 * noise).astype(np.float32)
    found = gates_of(images)['maps']
    gate = images[..., [0, 2]].astype(np.float64)
    assert found.std == pytest.approx(gate.std(), rel=1e-2)
    assert found.spatial_std == pytest.approx(gate.std(axis=(1, 2)).mean(), rel=1e-2)


def constant(value):
    return np.full((6, 4, 4, 3), value, np.float32)


def test_a_gate_without_response_is_dead():
    per_image = constant(0.5) + np.linspace(-0.1, 0.1, 6, dtype=np.float32)[:, None, None, None]
    per_pixel = np.broadcast_to(random_images(1), (6, 4, 4, 3))
    some_open = np.where(np.arange(4) < 3, 0.97, 0.5)[:, None] * np.ones((6, 4, 4, 3))
    for images, maps, channels in [
        (constant(0.5) + 1e-4 * random_images(6), 'constant', 'constant'),
        (constant(0.96) + 0.03 * random_images(6), 'open', 'open'),
        (0.04 * random_images(6), 'closed', 'closed'),
        (per_image, None, None),
        (per_pixel, None, 'constant'),  # Equal in every image, but not in every pixel.
        (some_open, None, 'open'),
    ]:
        found = gates_of(images)
        assert (found['maps'].dead, found['channels'].dead) == (maps, channels)
    assert gates_of(random_images(1))['channels'].dead is None  # one image cannot tell


def test_a_uniform_map_has_entropy_1_and_a_single_pixel_0():
    one = constant(0.0)
    one[:, 1, 2] = 0.8
    assert gates_of(constant(0.3))['maps'].entropy == pytest.approx(1, abs=1e-6)
    assert gates_of(one)['maps'].entropy == pytest.approx(0, abs=1e-6)
    assert gates_of(constant(0.0))['maps'].entropy == 1


def test_a_gate_from_0_to_2_is_measured_by_its_own_range():
    block = SSABlock(gate_scale=2.0, zero_init=True)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype(np.float32)
    variables = block.init(jax.random.key(0), x, train=False)
    variables['params']['bn']['bias'] += 10
    (found,) = gate_statistics(block, variables, x, bins=4).values()
    assert found.shape.top == 2
    assert (found.mean, found.high, found.dead) == (pytest.approx(2, abs=1e-3), 1, 'open')
    np.testing.assert_array_equal(found.histogram, [0, 0, 0, 1])
    variables['params']['bn']['bias'] *= 0  # 2 sigmoid(0) = 1 is the middle, not the end.
    (found,) = gate_statistics(block, variables, x).values()
    assert (found.mean, found.high, found.dead) == (1, 0, 'constant')


@pytest.fixture(scope='module')
def network():
    model = create_model('ssa_resnet50', num_classes=5, stem='cifar', stage_sizes=(1, 1))
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    stats = variables['batch_stats']
    for block in (
        'layer1_0',
        'layer2_0',
    ):  # gates neither uniform nor saturated
        stats[block]['ssa']['bn']['var'] += 1e4
    return model, variables, images


def test_gates_of_a_network_are_those_of_its_feature_maps(network):
    model, variables, images = network
    raw = np.uint8([10, 20, 30])[:, None, None, None] * np.ones((3, 8, 8, 3), np.uint8)

    def preprocess(image):
        return images + 0 * image.astype(jnp.float32)

    found = gate_statistics(model, variables, raw, preprocess=preprocess)
    maps = feature_maps(model, variables, images, ['*/ssa/gate'])
    assert [f'{name}/gate' for name in found] == list(maps)
    assert len(found) == 2
    for name, gate in found.items():
        assert_statistics(gate, np.asarray(maps[f'{name}/gate']))


def test_a_network_with_folded_batch_norms_has_the_same_gates(network):
    model, variables, images = network
    expected = gate_statistics(model, variables, images)
    found = gate_statistics(*fold_batch_norm(model, variables), images)
    for name, gate in expected.items():
        assert found[name].scalars() == pytest.approx(gate.scalars(), rel=1e-4, abs=1e-6)


def test_gates_are_named_by_their_modules_in_the_order_of_computation():
    model = create_model('gssa_resnet20', num_classes=5, stage_sizes=[11])
    assert list(find_gates(model, 8)) == [f'layer1_{index}/gssa' for index in range(11)]
    wide = create_model('gssa_resnet50', num_classes=5, stem='cifar', stage_sizes=(1,))
    assert find_gates(wide, 8) == {'layer1_0/gssa': GateShape(8, 8, 256 // 32, 1.0)}
    halves = create_model('cbam_resnet20', num_classes=5, stage_sizes=(1, 1))
    assert find_gates(halves, 8) == {
        'layer1_0/cbam/channel': GateShape(1, 1, 16, 1.0),
        'layer1_0/cbam/spatial': GateShape(8, 8, 1, 1.0),
        'layer2_0/cbam/channel': GateShape(1, 1, 32, 1.0),
        'layer2_0/cbam/spatial': GateShape(4, 4, 1, 1.0),
    }


def test_a_network_without_gates_and_no_batch_are_refused(network):
    with pytest.raises(ValueError, match=r'No module of this ResNet has a gate; choose'):
        find_gates(create_model('resnet20', num_classes=5, stage_sizes=(1,)), 8)
    with pytest.raises(ValueError, match='no batch'):
        gate_statistics(*network[:2], [])
