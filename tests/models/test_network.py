"""Every attention block in a small network of every family."""

from functools import partial

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import create_model
from ssanet_jax.analysis.feature_maps import feature_maps
from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.mobilenet import Stage
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.models.residual_attention import resize
from ssanet_jax.training import parallel, steps
from ssanet_jax.training.losses import cross_entropy
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.steps import TrainState
from ssanet_jax.weights.convert import variable_shapes
from tests.helpers import mesh_of, quick_jit, quickly

# One of every family with few blocks, and the names of those blocks.
SMALL = {
    'resnet18': ({'stage_sizes': (1, 1), 'width': 32}, ['layer1_0', 'layer2_0']),
    'resnet50': ({'stage_sizes': (1, 1), 'width': 16}, ['layer1_0', 'layer2_0']),
    'resnext50_32x4d': ({'stage_sizes': (1,)}, ['layer1_0']),
    'preact_resnet50': ({'stage_sizes': (1, 1), 'width': 16}, ['layer1_0', 'layer2_0']),
    'wide_resnet28_10': ({'stage_sizes': (1, 1), 'width': 32}, ['layer1_0', 'layer2_0']),
    'vgg16_bn': ({'stage_sizes': (1, 1), 'widths': (32, 64)}, ['layer1_0', 'layer2_0']),
    'densenet121': (
        {'stage_sizes': (1, 1), 'growth': 128},
        ['denseblock1_denselayer1', 'denseblock2_denselayer1'],
    ),
    'googlenet': ({'stages': (((16, 8, 16, 8, 16, 16),),)}, ['inception3a']),
    'mobilenet_v1': ({'stage_sizes': (1, 1)}, ['layer1_0', 'layer2_0']),
    'mobilenet_v2': (
        {'stages': (Stage(1, 32, 1, 1), Stage(2, 32, 2, 2)), 'head_width': 64},
        ['layer1_0/project', 'layer2_0/project', 'layer2_1/project'],
    ),
    'residual_attention56': (
        {'modules': (1,), 'width': 16, 'last_units': 1},
        [
            'layer1_0',
            'attention1_0/trunk_res1',
            'attention1_0/trunk_res2',
            'attention1_0/trunk_res3',
            'attention1_0/last',
            'layer2_0',
        ],
    ),
}


def small(name, kind=None, **options):
    full = f'{kind}_{name}' if kind else name
    return create_model(full, num_classes=5, stem='cifar', **SMALL[name][0], **options)


def init(model):
    images = jnp.ones((1, 16, 16, 3))
    return model.init(jax.random.key(0), images, train=False)


init_quickly = quick_jit(init, static_argnums=0)


def params_of(model):
    """Shapes of the parameters."""
    return jax.eval_shape(partial(init, model))['params']


def scopes_of(kind, variables_or_state):
    """Paths of the modules named `kind`."""
    flat = flax.traverse_util.flatten_dict(variables_or_state)
    return {'/'.join(path[: path.index(kind)]) for path in flat if kind in path}


def pairs(names, quick):
    """All pairs of attention and network, marked slow unless in `quick`."""
    return [
        pytest.param(
            kind, name, marks=() if (kind, name) in quick else pytest.mark.slow, id=f'{kind}-{name}'
        )
        for kind in sorted(ATTENTION)
        for name in names
    ]


# Every block and every network at least once; the other pairs take half an hour.
_LONGEST = range(max(len(ATTENTION), len(SMALL)))
ONCE = {(sorted(ATTENTION)[i % len(ATTENTION)], [*SMALL][i % len(SMALL)]) for i in _LONGEST}


@pytest.mark.parametrize(('kind', 'name'), pairs(SMALL, ONCE))
@pytest.mark.slow
def test_a_bfloat16_training_step_on_eight_devices_moves_every_parameter(kind, name):
    model = small(name, kind, dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    tx, mesh = optax.sgd(1.0), mesh_of(8)
    variables = init_quickly(model)
    # So that no hidden layer of two units is dead.
    alive = partial(jax.tree_util.tree_map_with_path, lambda p, a: a + 0.5 * (p[-1].key == 'bias'))
    variables['params'] = alive(variables['params'])
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables['params'],
        batch_stats=variables['batch_stats'],
        opt_state=tx.init(variables['params']),
    )
    step = partial(
        steps.train_step,
        objective=Objective(model, cross_entropy, lambda image: image.astype(jnp.float32)),
        tx=tx,
    )
    batch = {
        'image': rng.normal(size=(16, 16, 16, 3)).astype(np.float32),
        'label': np.arange(16, dtype=np.int32) % 5,
        'mask': np.ones(16, bool),
    }
    before = jax.device_get(state.params)
    step = parallel.parallel_train_step(step, mesh).lower(state, batch, Metrics.zero())
    state, metrics = step.compile(quickly())(state, batch, Metrics.zero())
    after = jax.device_get(state.params)

    assert np.isfinite(metrics.loss)
    for path, leaf in flax.traverse_util.flatten_dict(after).items():
        assert leaf.dtype == np.float32, path
        assert np.isfinite(leaf).all(), path
        assert (leaf != flax.traverse_util.flatten_dict(before)[path]).any(), path


@pytest.mark.parametrize('name', SMALL)
def test_every_block_has_a_slot_and_nothing_else_has(name):
    model = small(name, 'ssa')
    assert scopes_of('ssa', params_of(model)) == set(SMALL[name][1])
    assert len(SMALL[name][1]) == sum(model.blocks)


@pytest.mark.parametrize(('kind', 'name'), pairs(sorted(NETWORKS), ()))
@pytest.mark.slow
def test_a_network_at_its_own_size_takes_an_attention(kind, name):
    """Shapes only; tests/models/test_counts.py has each network with one attention."""
    model = create_model(f'{kind}_{name}', num_classes=5)
    if kind not in ('ge', 'simam'):  # which have no parameters
        assert len(scopes_of(kind, variable_shapes(model)['params'])) == sum(model.blocks)


@pytest.mark.parametrize(
    ('options', 'filled'),
    [
        ({'attention_stages': (2,)}, {'layer2_0', 'layer2_1'}),
        ({'attention_stages': (1, 3)}, {'layer1_0', 'layer1_1', 'layer3_0', 'layer3_1'}),
        ({'attention_blocks': (-1,)}, {'layer1_1', 'layer2_1', 'layer3_1'}),
        ({'attention_blocks': (0,), 'attention_stages': (3,)}, {'layer3_0'}),
    ],
)
def test_stages_and_blocks_choose_the_slots(options, filled):
    model = create_model('se_resnet20', num_classes=5, stage_sizes=(2, 2, 2), **options)
    assert scopes_of('se', params_of(model)) == filled


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'attention_stages': (4,)}, r'names stage 4; the stages are 1, 2, 3\.'),
        ({'attention_blocks': (3,)}, r'names block 3; the longest of those stages has 3'),
        ({'attention_position': 'inside'}, "choose 'pre_residual' or 'post_residual'"),
        ({'attention_stages': ()}, r'must be a tuple of numbers, e.g. \(3, 4\), or None'),
        ({'attention_blocks': 3}, r'attention_blocks=3\) must be a tuple of numbers'),
        ({'remat': (1, 4)}, r'remat=\(1, 4\)\) names stage 4; the stages are 1, 2, 3\.'),
        ({'remat': 3}, r'remat=3\) must be a tuple of numbers'),
        ({'dropout': 1.5}, r'dropout=1\.5\) must be at least 0'),
        ({'stochastic_depth': 1.0}, r'stochastic_depth=1\.0\) must be at least 0 and below 1'),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        init(create_model('ssa_resnet20', num_classes=5, **options))


class Zero(nn.Module):
    """A block that returns zeros."""

    @nn.compact
    def __call__(self, x, *, train):
        return jnp.zeros_like(x)


@pytest.mark.parametrize(
    'name',
    [
        'resnet18',
        pytest.param('preact_resnet50', marks=pytest.mark.slow),
        'mobilenet_v2',
        pytest.param('residual_attention56', marks=pytest.mark.slow),
    ],
)
def test_a_block_after_the_sum_gets_the_sum(name):
    """A block that returns zeros leaves nothing after the sum, and the shortcut before it."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32)
    block = SMALL[name][1][-1].removesuffix('/project')
    last = {}
    for place in ('pre_residual', 'post_residual'):
        model = small(name, attention=partial(Zero, name='zero'), attention_position=place)
        last[place] = feature_maps(model, init_quickly(model), images, [block])[block]
    assert (last['post_residual'] == 0).all()
    assert (last['pre_residual'] != 0).any()


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('name', ['vgg16_bn', 'ssa_vgg16_bn', 'se_densenet121'])
def test_images_that_shrink_to_nothing_are_refused(name, train):
    model = create_model(name, num_classes=5)
    with pytest.raises(ValueError, match='too small for this network'):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=train))


@pytest.mark.parametrize(('before', 'after'), [(1, 4), (7, 14)])
def test_masks_are_resized_corner_on_corner_in_bfloat16_too(before, after):
    """The oracle interpolates columns, then rows, with NumPy."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, before, before, 2)).astype(np.float32)
    x = np.asarray(x.astype(jnp.bfloat16), np.float32)
    places = np.linspace(0, before - 1, after)
    rows = np.stack(
        [np.interp(places, np.arange(before), x[0, :, w, c]) for w in range(before) for c in (0, 1)]
    ).reshape(before, 2, after)  # w, c, H
    expected = np.stack(
        [np.interp(places, np.arange(before), rows[:, c, h]) for h in range(after) for c in (0, 1)]
    ).reshape(after, 2, after)  # H, c, W
    expected = expected.transpose(0, 2, 1)[None]
    np.testing.assert_allclose(resize(jnp.asarray(x), after, after), expected, atol=1e-4)
    coarse = resize(jnp.asarray(x, jnp.bfloat16), after, after)
    assert coarse.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(jnp.float32), expected, rtol=2**-8, atol=1e-4)
