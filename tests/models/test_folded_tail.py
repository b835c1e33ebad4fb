from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock, layers
from ssanet_jax.models.residual_block import ResidualBlock
from tests.helpers import assert_trees_equal, float64, mesh_of, quick_jit
from tests.models.tails import ATTENTION, assert_close, block, init, random_variables, step

attentions = pytest.mark.parametrize('attention', ATTENTION.values(), ids=ATTENTION.keys())


@attentions
@pytest.mark.parametrize('train', [False, True])
def test_folded_and_plain_are_one_function(attention, train, images):
    """Values, every gradient and every running statistic, with a projection shortcut."""
    x, dy = images(3, 6, 4, 8), images(3, 3, 2, 16)
    with float64():
        variables = random_variables(block('plain', attention), x)
        folded, plain = (
            quick_jit(partial(step, block(tail, attention), train=train))(variables, x, dy)
            for tail in ('folded', 'plain')
        )
    assert_close(folded, plain)


def test_folded_and_plain_have_one_tangent_and_one_second_derivative(images):
    """In training, along a direction in the space of every parameter and x."""
    attention = ATTENTION['ssa sum 1']
    x, dx = images(2, 4, 4, 8), images(2, 4, 4, 8)
    with float64():
        variables = random_variables(block('plain', attention, stride=1, width=2), x)
        params = variables['params']
        direction = jax.tree.map(lambda a: images(*a.shape), params)

        def derivatives(tail):
            module = block(tail, attention, stride=1, width=2)

            def apply(t):
                moved = jax.tree.map(lambda a, da: a + t * da, params, direction)
                everything = {**variables, 'params': moved}
                return module.apply(everything, x + t * dx, train=True, mutable=['batch_stats'])

            second = jax.hessian(lambda t: jnp.sum(jnp.sin(apply(t)[0])))  # forward over reverse
            return jax.jvp(apply, (0.0,), (1.0,)), second(0.0)

        folded, plain = (quick_jit(partial(derivatives, tail))() for tail in ('folded', 'plain'))
    assert_close(folded, plain)


@pytest.mark.parametrize(
    ('kind', 'groups', 'fast'),
    [
        pytest.param('none', None, True, marks=pytest.mark.slow),
        pytest.param('none', [[0, 1], [2, 3]], False, marks=pytest.mark.slow),
        ('ssa sum 1', None, False),
    ],
    ids=str,
)
def test_folded_and_plain_share_statistics_over_devices_alike(kind, groups, fast, images):
    norm = partial(
        layers.BatchNorm, axis_name='data', axis_index_groups=groups, use_fast_variance=fast
    )
    attention = ATTENTION[kind] and partial(ATTENTION[kind], norm=norm)
    x, dy = images(8, 4, 4, 8), images(8, 2, 2, 16)
    spec = jax.sharding.PartitionSpec('data')

    def on_four_devices(tail):
        module = block(tail, attention, norm=norm)
        step_of = jax.shard_map(
            lambda x, dy: jax.tree.map(lambda a: a[None], step(module, variables, x, dy, True)),
            mesh=mesh_of(4),
            in_specs=spec,
            out_specs=spec,
            check_vma=False,
        )
        return quick_jit(step_of)(x, dy)

    with float64():
        variables = random_variables(block('plain', attention), x)
        assert_close(on_four_devices('folded'), on_four_devices('plain'))


@attentions
def test_a_freshly_made_block_is_the_same_in_both_forms(attention, images):
    """Names, shapes and values are equal, so checkpoints are interchangeable."""
    x = images(1, 4, 4, 8, dtype=np.float32)
    folded, plain = (
        init(block(tail, attention, zero_init_residual=True), x) for tail in ('folded', 'plain')
    )
    assert_trees_equal(folded, plain)


@pytest.mark.parametrize('value', [0.0, 1e4])
@attentions
@pytest.mark.slow
def test_constant_inputs_have_finite_gradients(attention, value):
    x = np.full((2, 4, 4, 8), value, np.float32)
    module = block('folded', attention, stride=1)
    variables = init(module, x)
    result = quick_jit(partial(step, module, train=True))(
        variables, x, np.ones((2, 4, 4, 16), np.float32)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


@pytest.mark.parametrize('kind', [pytest.param('none', marks=pytest.mark.slow), 'ssa sum 1'])
@pytest.mark.parametrize(
    ('dtype', 'mean', 'most'),
    [(np.float32, 0.5, 1e-5), (np.float32, 300.0, 1e-3), (jnp.bfloat16, 0.5, 5e-2)],
    ids=['float32', 'float32 far from zero', 'bfloat16'],
)
def test_the_folded_form_rounds_no_worse_than_the_plain(kind, dtype, mean, most):
    """Errors against float64, of output, gradients and statistics together; medians.

    benchmarks/tail_rounding.py has the figures.
    """
    module = {
        tail: TailAlone(width=4, attention=ATTENTION[kind], tail=tail)
        for tail in ('folded', 'plain')
    }
    steps = {tail: jax.jit(partial(step, module[tail], train=True)) for tail in module}
    errors = {'folded': [], 'plain': []}
    rng = np.random.default_rng(0)
    for _ in range(49):  # a single draw may end either way
        x, dy = (
            np.asarray(jnp.asarray(rng.normal(m, 1, (8, 8, 8, 16)), dtype), np.float32)
            for m in (mean, 0.5)
        )
        variables = random_variables(module['plain'], x)
        with float64():
            exact = steps['plain'](variables, x.astype(np.float64), dy.astype(np.float64))
            exact = jax.tree.map(np.asarray, exact)
        variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), variables)
        for tail in module:
            result = steps[tail](variables, jnp.asarray(x, dtype), jnp.asarray(dy, dtype))
            errors[tail].append(relative_error(result, exact))
    folded, plain = np.median(errors['folded']), np.median(errors['plain'])
    assert folded < min(most, 1.5 * plain)


class TailAlone(ResidualBlock):
    """A tail fed by a quarter of the channels, with all of them as the shortcut."""

    expansion: ClassVar[int] = 4
    num_convs: ClassVar[int] = 3
    last_kernel: ClassVar[int] = 1

    def inner(self, x, *, train):
        return x[..., : self.width]


def relative_error(actual, exact):
    """The largest relative error of an array in the Euclidean norm, ignoring vanishing ones."""
    return max(
        np.linalg.norm(np.asarray(a, np.float64) - e) / np.linalg.norm(e)
        for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(exact), strict=True)
        if np.linalg.norm(e) > 1e-6
    )


@pytest.mark.parametrize(
    ('kind', 'names'), [('ssa sum 1', ['gate', 'saliency']), ('se', ['gate'])], ids=str
)
def test_saliency_and_gate_can_be_had_from_the_folded_form(kind, names, images):
    x = images(2, 8, 8, 8, dtype=np.float32)
    maps = {}
    for tail in ('folded', 'plain'):
        module = block(tail, ATTENTION[kind])
        variables = init(module, x)
        apply = partial(module.apply, train=True, mutable=['intermediates', 'batch_stats'])
        _, updates = quick_jit(apply)(variables, x)
        maps[tail] = updates['intermediates'][kind.split()[0]]
    assert sorted(maps['folded']) == names
    assert_close(maps['folded'], maps['plain'], rtol=1e-4)


def test_an_attention_without_a_name_gets_the_same_one_in_both_forms(images):
    x = images(1, 4, 4, 8, dtype=np.float32)
    folded, plain = (init(block(tail, SSABlock), x) for tail in ('folded', 'plain'))
    assert_trees_equal(folded, plain)
