"""Rematerialized stages compute the same and keep less."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import create_model
from tests.helpers import assert_close, float64, quick_jit
from tests.models.test_network import SMALL, small

# XLA for CPUs removes the barriers around rematerialized blocks first of all, and then merges each
# with the original; compilers for TPUs and GPUs keep them.
KEEP_BARRIERS = {'xla_disable_hlo_passes': 'cse_barrier_expander'}


def step_of(model, state, x):
    """A training step, as a function of the parameters: gradients, logits and statistics."""

    def loss(params):
        logits, updates = model.apply(
            {**state, 'params': params},
            x,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': jax.random.key(1)},
        )
        return jnp.sum(jnp.sin(logits)), (logits, updates)

    return jax.grad(loss, has_aux=True)


def variables(model, x):
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)


@pytest.mark.slow
@pytest.mark.parametrize('name', SMALL)
def test_a_step_of_rematerialized_stages_is_the_same(name):
    """With dropout, whose draws must not change."""
    plain = small(name, 'ssa', dtype=jnp.float64, dropout=0.5)
    if hasattr(plain, 'stochastic_depth'):
        plain = plain.clone(stochastic_depth=0.5)
    remat = plain.clone(remat=tuple(range(1, len(plain.blocks) + 1)))
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3))
    with float64():
        state = quick_jit(partial(plain.init, train=False))(jax.random.key(0), x)
        state = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), state)
        expected = quick_jit(step_of(plain, state, x))(state['params'])
        found = quick_jit(step_of(remat, state, x))(state['params'])
    jax.tree.map(assert_close, found, expected)


@pytest.mark.parametrize('name', SMALL)
def test_every_block_of_the_chosen_stages_is_rematerialized_in_training_alone(name):
    plain, x = small(name), jnp.ones((2, 16, 16, 3))
    remat = plain.clone(remat=(1,))
    state = variables(plain, x)
    assert variables(remat, x) == state  # names and shapes

    def program(model, train):
        rngs = {'dropout': jax.random.key(0)}
        apply = partial(model.apply, train=train, mutable=['batch_stats'], rngs=rngs)
        return jax.make_jaxpr(apply)(state, x)

    kinds = [eqn.primitive.name for eqn in program(remat, True).eqns]
    # The four units of an attention module are rematerialized together.
    assert kinds.count('remat2') == {'residual_attention56': 2}.get(name, plain.blocks[0])
    assert 'remat2' not in str(program(plain, True))
    assert str(program(remat, False)) == str(program(plain, False))


def test_rematerialized_stages_need_less_memory():
    x = jax.ShapeDtypeStruct((16, 16, 16, 3), jnp.float32)

    def temporaries(remat):
        model = create_model(
            'vgg11_bn', num_classes=5, stage_sizes=(6,), widths=(16,), stem='cifar', remat=remat
        )
        state = variables(model, x)
        step = jax.jit(lambda state, x: step_of(model, state, x)(state['params']))
        compiled = step.lower(state, x).compile(KEEP_BARRIERS)
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries((1,)) < 0.7 * temporaries(None)
