"""Every attention block under the transformations of flax and JAX, against the block itself."""

import functools
import operator
from functools import partial
from importlib.metadata import version

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax import SSABlock, layers
from ssanet_jax.attention import ATTENTION
from tests.helpers import float64, quick_jit

CHANNELS = 16
CLASSES = {kind: layers.unwrap_partial(ATTENTION[kind]) for kind in sorted(ATTENTION)}
EACH = pytest.mark.parametrize('kind', CLASSES)
# A BatchNorm, nested modules, several norms, and no parameters; the others are like these.
SOME = pytest.mark.parametrize(
    'kind',
    [
        pytest.param(kind, marks=() if kind in ('ssa', 'cbam', 'ge', 'simam') else pytest.mark.slow)
        for kind in CLASSES
    ],
)
CLOSE = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def make(kind, lift=lambda block: block, **options):
    given = getattr(ATTENTION[kind], 'keywords', {})
    if kind == 'ge':
        given = {'gather': 'conv', 'extent': 2}  # the form with parameters and BatchNorm
    return lift(CLASSES[kind])(**given, **options)


def features(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(*shape, CHANNELS)).astype(dtype)


@functools.cache
def variables(kind):
    x = features(1, 2, 3)
    state = make(kind).init(jax.random.key(0), x, train=False)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: rng.uniform(0.5, 1.5, a.shape).astype(np.float32) * 0.5, state)


@functools.cache
def train(kind):
    """Compiles the function of variables and x to the output and the new statistics."""
    return quick_jit(partial(make(kind).apply, train=True, mutable=['batch_stats']))


def step(apply, state, x):
    """Output, gradients of input and parameters, and new statistics of a training step."""

    def loss(x, params):
        y, updates = apply({**state, 'params': params}, x)
        return jnp.sum(jnp.sin(y)), (y, updates)

    return quick_jit(jax.grad(loss, (0, 1), has_aux=True))(x, state.get('params', {}))


@functools.cache
def expected_step(kind):
    apply = partial(make(kind).apply, train=True, mutable=['batch_stats'])
    return step(apply, variables(kind), features(2, 2, 3))


@SOME
def test_lifted_remat_computes_the_same_step(kind):
    block = make(kind, partial(nn.remat, static_argnums=(2,)))
    found = step(
        lambda state, x: block.apply(state, x, True, mutable=['batch_stats']),
        variables(kind),
        features(2, 2, 3),
    )
    jax.tree.map(CLOSE, found, expected_step(kind))
    attribute = partial(make(kind, nn.remat, train=True).apply, mutable=['batch_stats'])
    y, _ = jax.eval_shape(attribute, variables(kind), features(2, 2, 3))
    assert y.shape == (2, 2, 3, CHANNELS)


@SOME
def test_lifted_jit_computes_the_same(kind):
    x = features(2, 2, 3)
    for block, arguments in (
        (make(kind, partial(nn.jit, static_argnums=(2,))), (True,)),
        (make(kind, nn.jit, train=True), ()),
    ):
        found = block.apply(variables(kind), x, *arguments, mutable=['batch_stats'])
        jax.tree.map(CLOSE, found, expected_step(kind)[1])


@SOME
def test_jax_checkpoint_computes_the_same_step(kind):
    block = make(kind, train=True)
    apply = jax.checkpoint(partial(block.apply, mutable=['batch_stats']))
    found = step(apply, variables(kind), features(2, 2, 3))
    jax.tree.map(CLOSE, found, expected_step(kind))


@SOME
def test_lifted_vmap_applies_a_block_to_each_input(kind):
    lift = partial(
        nn.vmap,
        in_axes=(0, None),
        variable_axes={'params': None, 'batch_stats': 0},
        split_rngs={'params': False},
    )
    x, state = features(2, 2, 2, 3), dict(variables(kind))
    if 'batch_stats' in state:
        state['batch_stats'] = jax.tree.map(lambda a: np.stack([a] * 2), state['batch_stats'])
    block = make(kind, lift)
    found = quick_jit(lambda *a: block.apply(*a, True, mutable=['batch_stats']))(state, x)
    each = [train(kind)(variables(kind), one) for one in x]
    jax.tree.map(CLOSE, found, jax.tree.map(lambda *leaves: np.stack(leaves), *each))


class Stack(nn.Module):
    """Two blocks one after the other, by `nn.scan`."""

    kind: str

    @nn.compact
    def __call__(self, x):
        axes = {'params': 0, 'batch_stats': 0, 'intermediates': 0}
        scan = partial(nn.scan, variable_axes=axes, split_rngs={'params': True}, length=2)
        block = make(self.kind, train=True, name='block')
        return scan(lambda block, x, _: (block(x), None))(block, x, None)[0]


@SOME
def test_lifted_scan_applies_blocks_one_after_the_other(kind):
    x = features(2, 2, 3)
    state = quick_jit(Stack(kind).init)(jax.random.key(0), x)
    y, updates = quick_jit(partial(Stack(kind).apply, mutable=['batch_stats']))(state, x)
    stats = []
    for index in range(2):
        own = {name: tree['block'] for name, tree in state.items()}
        own = jax.tree.map(operator.itemgetter(index), own)
        x, update = train(kind)(own, x)
        stats.append(update.get('batch_stats', {}))
    CLOSE(y, x)
    found = updates.get('batch_stats', {}).get('block', {})
    jax.tree.map(CLOSE, found, jax.tree.map(lambda *leaves: np.stack(leaves), *stats))


@EACH
def test_forward_mode_and_hessians_are_those_of_finite_differences(kind):
    """Along two directions in the space of inputs, in float64."""
    with float64():
        state = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables(kind))
        x, *directions = features(3, 2, 2, 3, dtype=np.float64)

        def loss(t):
            moved = x + t[0] * directions[0] + t[1] * directions[1]
            y, _ = make(kind).apply(state, moved, train=True, mutable=['batch_stats'])
            return jnp.sum(jnp.sin(y))

        at, unit = jnp.zeros(2), 1e-4 * jnp.eye(2)
        values = quick_jit(loss)
        gradient = quick_jit(jax.jacfwd(loss))(at)
        np.testing.assert_allclose(
            gradient, [(values(u) - values(-u)) / 2e-4 for u in unit], rtol=1e-5, atol=1e-6
        )
        reverse = quick_jit(jax.grad(loss))
        np.testing.assert_allclose(
            quick_jit(jax.hessian(loss))(at),
            [(reverse(u) - reverse(-u)) / 2e-4 for u in unit],
            rtol=1e-4,
            atol=1e-4,
        )


@EACH
def test_train_as_attribute_positional_and_keyword_argument_are_one(kind):
    def program(block, *arguments, **options):
        apply = partial(block.apply, mutable=['batch_stats'], **options)
        compiled = jax.jit(lambda state, x: apply(state, x, *arguments))
        return compiled.lower(variables(kind), features(2, 2, 3)).as_text()

    for train in (False, True):
        keyword = program(make(kind), train=train)
        assert program(make(kind), train) == keyword
        assert program(make(kind, train=train)) == keyword


def test_train_must_be_given_once():
    x, state = features(1, 2, 3), variables('ssa')
    with pytest.raises(ValueError, match='train'):
        SSABlock().apply(state, x)
    with pytest.raises(ValueError, match='train'):
        SSABlock(train=False).apply(state, x, train=False)


@SOME
def test_nnx_bridge_computes_the_same_outputs_statistics_and_gates(kind):
    if kind == 'cbam' and version('flax') < '0.12.1':
        pytest.skip("this flax's bridge loses parameters of nested modules")
    x = features(2, 2, 3)
    module = nnx.bridge.ToNNX(make(kind), rngs=nnx.Rngs(0)).lazy_init(x, train=False)
    state = {'params': arrays(module, nnx.Param), 'batch_stats': arrays(module, nnx.BatchStat)}
    for train, mutable in ((True, ['batch_stats']), (False, ['intermediates'])):
        expected, updates = make(kind).apply(state, x, train=train, mutable=mutable)
        CLOSE(module(x, train=train, mutable=mutable), expected)
        state |= updates
    jax.tree.map(CLOSE, arrays(module, nnx.BatchStat), state['batch_stats'])
    gates = arrays(module, nnx.Intermediate), state['intermediates']
    jax.tree.map(CLOSE, *map(jax.tree.leaves, gates))  # flax 0.11 returns a tuple as a dict


def arrays(module, kind):
    return nnx.to_pure_dict(nnx.state(module, kind))
