from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock, create_model, layers
from ssanet_jax.attention import CBAMBlock, SEBlock
from ssanet_jax.models.folded_tail import chooses_fold
from tests.helpers import float64, quick_jit
from tests.models.tails import assert_close, block, init, random_variables, step


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
