from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock, create_model, layers
from ssanet_jax.attention import CBAMBlock, ECABlock, SEBlock
from ssanet_jax.layers.affine_map import AffineMap
from ssanet_jax.models.folded_attention import FoldedSSA
from ssanet_jax.models.folded_tail import chooses_fold
from ssanet_jax.models.residual_block import Bottleneck, ResidualBlock
from tests.helpers import assert_trees_equal, float64, mesh_of, quick_jit

SSA = [{'combine': 'sum', 'num_groups': 1}, {'combine': 'mean', 'num_groups': 4}]
ATTENTION = {
    'none': None,
    **{f'ssa {o["combine"]} {o["num_groups"]}': partial(SSABlock, name='ssa', **o) for o in SSA},
    'se': partial(SEBlock, ratio=4, name='se'),
    'eca': partial(ECABlock, kernel_size=3, name='eca'),
}
attentions = pytest.mark.parametrize('attention', ATTENTION.values(), ids=ATTENTION.keys())


def block(tail, attention=None, stride=2, width=4, **options):
    return Bottleneck(width=width, stride=stride, attention=attention, tail=tail, **options)


@pytest.fixture
def images(rng):
    """Draws feature maps of a shape."""
    return lambda *shape, dtype=np.float64: rng.normal(0.5, 1.0, size=shape).astype(dtype)


def init(module, x):
    return quick_jit(partial(module.init, train=False))(jax.random.key(0), x)


def random_variables(module, x):
    """Random variables with the shapes of `module`, equal for all forms of the tail."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    values = [
        np.random.default_rng(index).uniform(0.5, 1.5, leaf.shape) - ('var' not in str(path)) * 0.7
        for index, (path, leaf) in enumerate(leaves)
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


def step(module, variables, x, dy, train):
    """Output, gradients of every parameter and of x, and the new statistics."""

    def apply(params, x):
        everything = {'params': params, 'batch_stats': variables['batch_stats']}
        return module.apply(everything, x, train=train, mutable=['batch_stats'])

    y, pullback, updates = jax.vjp(apply, variables['params'], x, has_aux=True)
    return y, pullback(dy.astype(y.dtype)), updates['batch_stats']


def assert_close(actual, expected, rtol=1e-8):
    """Checks arrays up to a tolerance relative to the largest entry of each."""

    def close(a, b):
        scale = np.abs(np.asarray(b)).max()
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(scale, 1e-3))

    jax.tree.map(close, actual, expected)


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


def test_auto_folds_where_there_are_pixels_to_save():
    chooses = partial(chooses_fold, 'auto', norm=layers.BatchNorm, attention=None)
    assert chooses((32, 56, 56, 64), 256, train=True)
    assert not chooses((32, 7, 7, 512), 2048, train=True)
    assert not chooses((2, 14, 14, 256), 1024, train=True)
    assert chooses((2, 14, 14, 256), 1024, train=False)
    assert not chooses((32, 56, 56, 64), 256, train=True, kernel_size=3)
    # Fewer pixels are enough with SSA, but not with SE.
    assert chooses((32, 7, 7, 512), 2048, train=True, attention=SSABlock)
    assert not chooses((32, 7, 7, 512), 2048, train=True, attention=SEBlock)
    assert chooses((128, 7, 7, 512), 2048, train=True, attention=SEBlock)


@pytest.mark.parametrize(
    'attention',
    [
        pytest.param(partial(SSABlock, squeeze='max', name='ssa'), marks=pytest.mark.slow),
        partial(CBAMBlock, ratio=4, name='cbam'),
    ],
    ids=['ssa max', 'cbam'],
)
def test_attention_that_cannot_be_folded_is_plain_or_refused(attention, images):
    x, dy = images(3, 6, 4, 8), images(3, 3, 2, 16)
    with float64():
        variables = random_variables(block('plain', attention), x)
        auto, plain = (
            quick_jit(partial(step, block(tail, attention), train=True))(variables, x, dy)
            for tail in ('auto', 'plain')
        )
    assert_close(auto, plain)
    with pytest.raises(ValueError, match='covers blocks that end in a 1x1'):
        init(block('folded', attention), x.astype(np.float32))


@pytest.mark.parametrize(
    ('option', 'value'), [('combine', 'product'), ('num_groups', 3), ('num_groups', 0)]
)
@pytest.mark.parametrize('tail', ['auto', 'plain'])
def test_invalid_options_of_ssa_are_refused_in_either_form(tail, option, value):
    attention = partial(SSABlock, name='ssa', **{option: value})
    with pytest.raises(ValueError, match=f'SSABlock\\({option}='):
        init(block(tail, attention), jnp.ones((1, 4, 4, 8)))


def test_custom_attention_stays_plain(images):
    class Louder(SSABlock):
        def __call__(self, x, *, train):
            return 2 * super().__call__(x, train=train)

    x = images(2, 4, 4, 16, dtype=np.float32)
    for attention in (lambda: lambda y, train: y * 0, partial(Louder, name='ssa')):
        modules = (block(tail, attention, stride=1) for tail in ('plain', 'auto'))
        expected, auto = (
            quick_jit(partial(module.init_with_output, train=False))(jax.random.key(0), x)[0]
            for module in modules
        )
        np.testing.assert_array_equal(auto, expected)


def test_flaxs_own_batch_norm_is_plain_or_refused(images):
    x = images(1, 4, 4, 8, dtype=np.float32)
    init(block('auto', norm=nn.BatchNorm), x)
    with pytest.raises(ValueError, match="this package's BatchNorm"):
        init(block('folded', norm=nn.BatchNorm), x)


@pytest.mark.parametrize(('name', 'tail'), [('ssa_resnet20', 'folded'), ('resnet50', 'flat')])
def test_an_invalid_tail_is_refused(name, tail):
    model = create_model(name, num_classes=10, tail=tail)
    with pytest.raises(ValueError, match='tail='):
        init(model, jnp.ones((1, 32, 32, 3)))


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


@pytest.mark.parametrize('options', [{'gate_scale': 2.0}, {'group_size': 2}], ids=str)
def test_folded_ssa_computes_ssa_of_the_affine_map(options, images):
    h, dy = images(2, 3, 4, 3), images(2, 3, 4, 6)
    weight, bias = images(3, 6), images(6)
    variables = random_variables(SSABlock(**options), np.ones((2, 3, 4, 6), np.float32))

    def result_and_gradients(block, feature_map):
        def apply(h, weight, bias, params):
            state = {'params': params, 'batch_stats': variables['batch_stats']}
            x = feature_map(h, weight, bias)
            return block.apply(state, x, train=True, mutable=['batch_stats'])

        @quick_jit
        def run(*arguments):
            y, pullback, updates = jax.vjp(apply, *arguments, has_aux=True)
            return y, pullback(dy), updates

        with float64():
            return run(h, weight, bias, variables['params'])

    plain = result_and_gradients(SSABlock(**options), lambda h, weight, bias: h @ weight + bias)
    assert_close(result_and_gradients(FoldedSSA(**options), affine_map), plain)


def affine_map(h, weight, bias):
    return AffineMap(h, jnp.mean(h.astype(weight.dtype), axis=(1, 2)), weight, bias)


def test_folded_ssa_starts_as_the_identity_up_to_rounding(images):
    block = FoldedSSA(gate_scale=2.0, zero_init=True, num_groups=2)

    @quick_jit
    def output_and_input(h, weight):
        folded = affine_map(h, weight, np.ones(4, np.float32))
        y, _ = block.init_with_output(jax.random.key(0), folded, train=False)
        return y, folded.value()

    y, x = output_and_input(images(2, 3, 4, 6, dtype=np.float32), images(6, 4, dtype=np.float32))
    # Some processors round the two products over K differently.
    np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-6)


def test_an_attention_without_a_name_gets_the_same_one_in_both_forms(images):
    x = images(1, 4, 4, 8, dtype=np.float32)
    folded, plain = (init(block(tail, SSABlock), x) for tail in ('folded', 'plain'))
    assert_trees_equal(folded, plain)


@pytest.mark.parametrize(('groups', 'folded'), [(1, True), (2, True), (4, False)])
def test_auto_leaves_many_groups_plain(groups, folded):
    """Measured in benchmarks/results/tail_traffic.json: four groups save nothing."""
    assert folded == chooses_fold(
        'auto',
        (32, 56, 56, 64),
        256,
        norm=layers.BatchNorm,
        attention=partial(SSABlock, num_groups=groups, name='ssa'),
        train=True,
    )
