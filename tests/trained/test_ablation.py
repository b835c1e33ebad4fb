import copy
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from ssanet_jax import create_model, feature_maps
from ssanet_jax.analysis.gates import gate_statistics
from ssanet_jax.attention import ATTENTION
from ssanet_jax.trained import ablation
from ssanet_jax.trained.ablation import ALL, ablate

OPEN = 100.0  # sigmoid(100) is 1 in float32


apply = jax.jit(lambda model, *arguments: model.apply(*arguments, train=False), static_argnums=0)


@partial(jax.jit, static_argnums=0)
def sown(model, variables, images):
    """The values that attention blocks sow."""
    _, state = model.apply(variables, images, train=False, mutable=['intermediates'])
    return state['intermediates']


def build(name, **options):
    """A tiny network, its variables, and images whose labels it mostly predicts correctly."""
    norm = {'momentum': 0.0}
    model = create_model(name, num_classes=5, stem='cifar', norm_options=norm, **options)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(24, 4, 4, 3)).astype(np.float32)

    @jax.jit
    def init(key):
        variables = model.init(key, images, train=False)
        _, stats = model.apply(variables, images, train=True, mutable=['batch_stats'])
        return {**variables, **stats}

    variables = init(jax.random.key(0))
    logits = np.asarray(apply(model, variables, images))
    label = np.where(rng.random(24) < 0.7, logits.argmax(axis=1), 0).astype(np.int32)
    return model, variables, {'image': images, 'label': label}


def evaluation(model, variables, batch):
    """Top-1 in percent and the mean loss, by NumPy from the logits."""
    logits = np.asarray(apply(model, variables, batch['image']))
    correct = logits.argmax(axis=1) == batch['label']
    loss = -scipy.special.log_softmax(logits, axis=1)[np.arange(24), batch['label']]
    return 100 * correct.mean(), loss.mean()


def edited(variables, edits):
    """The variables with parameters as 'layer1_0/ssa/bn/bias' set to arrays or numbers."""
    variables = copy.deepcopy(jax.device_get(variables))
    for path, value in edits.items():
        *modules, leaf = path.split('/')
        params = variables['params']
        for module in modules:
            params = params[module]
        params[leaf] = np.broadcast_to(np.float32(value), params[leaf].shape)
    return variables


def assert_equals_edit(found, kind, name, model, variables, batch, edits):
    """Replacing a gate is equivalent to editing the parameters."""
    top1, loss = evaluation(model, edited(variables, edits), batch)
    change = found.changes[kind][name]
    assert found.top1 + change.top1 == pytest.approx(top1, abs=1e-3)
    assert found.loss + change.loss == pytest.approx(loss, rel=1e-5)
    assert abs(change.loss) > 1e-4  # or there was nothing to see


def ssa(block, bias):
    return {f'{block}/ssa/bn/scale': 0, f'{block}/ssa/bn/bias': bias}


def test_a_replaced_gate_is_a_batch_norm_that_gives_its_logit():
    model, variables, batch = build(
        'ssa_resnet50', stage_sizes=(1, 1), width=8
    )  # with folded tails
    statistics = gate_statistics(model, variables, [batch])
    programs = ablation._evaluate._cache_size()
    found = ablate(model, variables, [batch], statistics)
    assert ablation._evaluate._cache_size() == programs + 1  # for all gates and kinds
    top1, loss = evaluation(model, variables, batch)
    assert found[:3] == (24, pytest.approx(top1, abs=1e-3), pytest.approx(loss, rel=1e-5))
    maps = feature_maps(model, variables, batch['image'], ['*/ssa/gate'])
    logits = {
        block: scipy.special.logit(np.asarray(maps[f'{block}/ssa/gate'], np.float64).mean())
        for block in ('layer1_0', 'layer2_0')
    }
    for block, logit in logits.items():
        one, mean = ssa(block, OPEN), ssa(block, logit)
        gate = f'{block}/ssa'
        assert_equals_edit(found, 'one', gate, model, variables, batch, one)
        assert_equals_edit(found, 'mean', gate, model, variables, batch, mean)
    every = {path: value for b in logits for path, value in ssa(b, OPEN).items()}
    assert_equals_edit(found, 'one', ALL, model, variables, batch, every)
    every = {path: value for b, logit in logits.items() for path, value in ssa(b, logit).items()}
    assert_equals_edit(found, 'mean', ALL, model, variables, batch, every)
    assert [list(changes) for changes in found.changes.values()] == [[ALL, *statistics]] * 3


class Small(nn.Module):
    """An attention block, the mean over pixels, and a dense layer."""

    kind: str

    @nn.compact
    def __call__(self, x, *, train):
        x = ATTENTION[self.kind](name='attention')(x, train=train)
        return nn.Dense(5, name='fc')(jnp.mean(x, axis=(1, 2)))


def small(kind, size=4):
    """The network, its variables, a batch, and the block's input, which is the image."""
    rng = np.random.default_rng(0)
    model, image = Small(kind), 3 * rng.normal(size=(24, size, size, 64)).astype(np.float32)
    variables = jax.device_get(jax.jit(partial(model.init, train=False))(jax.random.key(0), image))
    return model, variables, {'image': image, 'label': rng.integers(0, 5, 24)}


def mean_loss(variables, y, label):
    """The mean loss by NumPy, from the block's output y [N, H, W, C]."""
    fc = variables['params']['fc']
    logits = np.asarray(y, np.float64).mean(axis=(1, 2)) @ fc['kernel'] + fc['bias']
    return -scipy.special.log_softmax(logits, axis=1)[np.arange(len(y)), label].mean()


@pytest.mark.parametrize(
    'kind', ['ca', *(pytest.param(kind, marks=pytest.mark.slow) for kind in ('gssa', 'se'))]
)
def test_gates_of_any_shape_are_replaced(kind):
    model, variables, batch = small(kind)
    image, label = batch['image'], batch['label']
    found = ablate(model, variables, [batch], gate_statistics(model, variables, [batch]))
    gate = np.asarray(sown(model, variables, image)['attention']['gate'][0], np.float64)
    maps = gate.shape[-1]
    mean = np.array([gate[..., k].mean() for k in range(maps)]).repeat(64 // maps)
    one, mean = (mean_loss(variables, factor * image, label) for factor in (1, mean))
    assert found.loss + found.changes['one']['attention'].loss == pytest.approx(one, rel=1e-5)
    assert found.loss + found.changes['mean']['attention'].loss == pytest.approx(mean, rel=1e-5)
    assert abs(found.changes['shuffled']['attention'].loss) > 1e-4
    assert found.loss == pytest.approx(
        mean_loss(variables, gate.repeat(64 // maps, axis=-1) * image, label), rel=1e-5
    )


def test_the_gates_of_one_block_are_replaced_separately():
    model, variables, batch = small('scse')
    image, label = batch['image'], batch['label']
    found = ablate(
        model, variables, [batch], gate_statistics(model, variables, [batch]), kinds=['one']
    )
    gates = sown(model, variables, image)['attention']
    for half, other in (('sse', 'se'), ('se', 'sse')):
        y = image + gates[other]['gate'][0] * image
        change = found.changes['one'][f'attention/{half}']
        expected = mean_loss(variables, y, label)
        assert found.loss + change.loss == pytest.approx(expected, rel=1e-5)


def test_one_pixel_cannot_be_shuffled():
    model, variables, batch = small('ssa', size=1)
    batch['image'] /= 30  # or the gate were saturated at 1
    statistics = gate_statistics(model, variables, [batch])
    found = ablate(model, variables, [batch], statistics)
    assert found.changes['shuffled']['attention'] == (0, 0)
    assert abs(found.changes['one']['attention'].loss) > 1e-3


class Multiplied(nn.Module):
    """Uses its image [N, 1, 2, maps] as the gate of a map of ones, and sums the result."""

    axis: int  # that is summed over; the other is the logits

    @nn.compact
    def __call__(self, x, *, train):
        return jnp.sum(Ones(name='ones')(jnp.ones_like(x), x), axis=(1, self.axis))


class Ones(nn.Module):
    def __call__(self, ones, gate):
        self.sow('intermediates', 'gate', gate)
        return gate * ones


def shuffled(model, gate, sizes=(400,), seed=0, label=0):
    """The change from shuffling the only gate, with the same gate in every image."""
    batches = [
        {
            'image': np.broadcast_to(np.float32(gate), (n, *np.shape(gate))),
            'label': np.full(n, label),
        }
        for n in sizes
    ]
    statistics = gate_statistics(model, {}, batches)
    return ablate(model, {}, batches, statistics, kinds=['shuffled'], seed=seed).changes[
        'shuffled'
    ]['ones']


@pytest.mark.parametrize(
    ('gate', 'axis'),
    [([[[3.0], [1.0]]], 3), ([[[3.0, 1.0]]], 2)],
    ids=['two pixels', 'two channels of one pixel'],
)
def test_each_image_is_shuffled_in_its_own_order(gate, axis):
    """Logits 3 and 1 are swapped in about half of the images, and left in the others."""
    change = shuffled(Multiplied(axis), gate)
    swapped = -change.top1 / 100
    assert swapped == pytest.approx(0.5, abs=0.1)  # four standard deviations
    assert change.loss == pytest.approx(swapped * 2, abs=1e-4)  # log softmax differs by 3 - 1
    assert shuffled(Multiplied(axis), gate, sizes=(100,) * 4) == pytest.approx(change, abs=1e-4)
    assert shuffled(Multiplied(axis), gate, seed=1).top1 != change.top1


def test_maps_of_one_image_are_shuffled_together():
    """Two maps whose sum is the same in both pixels."""
    assert shuffled(Multiplied(3), [[[3.0, 1.0], [1.0, 3.0]]]) == pytest.approx((0, 0), abs=1e-6)


def test_padding_does_not_count_and_an_undecodable_image_is_incorrect():
    model, variables, batch = small('ssa')
    label = np.where(np.arange(24) == 3, -1, batch['label'])
    padded = {**batch, 'label': label, 'mask': np.arange(24) < 20}
    statistics, calls = gate_statistics(model, variables, [padded]), []
    found = ablate(
        model, variables, [padded], statistics, kinds=['one'], advance=lambda: calls.append(1)
    )
    assert (found.images, len(calls)) == (20, 3)

    logits = np.asarray(apply(model, variables, batch['image']))[:20]
    loss = -scipy.special.log_softmax(logits, axis=1)[np.arange(20), label[:20]]
    loss[3] = math.log(5)
    correct = logits.argmax(axis=1) == label[:20]
    assert found.top1 == pytest.approx(100 * correct.mean(), abs=1e-3)
    assert found.loss == pytest.approx(loss.mean(), rel=1e-5)


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match=r"kind='half' is unknown; choose from one, mean, shuf"):
        ablate(Multiplied(3), {}, [], {}, kinds=['half'])
    with pytest.raises(ValueError, match='no batch'):
        ablate(Multiplied(3), {}, [], {})


def test_mirror_images_are_averaged_as_in_evaluation():
    model, variables, batch = build('ssa_resnet20', stage_sizes=(1, 1), width=4)
    statistics = gate_statistics(model, variables, [batch])
    found = ablate(model, variables, [batch], statistics, flip=True, kinds=['one'])
    change = found.changes['one']['layer1_0/ssa'].loss
    for edits, added in (({}, 0.0), (ssa('layer1_0', OPEN), change)):
        views = batch['image'], batch['image'][:, :, ::-1]
        changed = edited(variables, edits)
        logits = np.mean([np.asarray(apply(model, changed, view)) for view in views], axis=0)
        log_probs = scipy.special.log_softmax(logits, axis=1)
        loss = -log_probs[np.arange(24), batch['label']].mean()
        assert found.loss + added == pytest.approx(loss, rel=1e-5)
