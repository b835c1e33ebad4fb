"""A run goes on with another optimizer where --allow_config_change is advised, and only there."""

import dataclasses
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.training import loop, start
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import assert_trees_equal, load_config


def state(tx, value, width=3):
    params = {'fc': {'kernel': jnp.full((2, width), value), 'bias': jnp.full((width,), value)}}
    return TrainState(jnp.int32(value), params, {}, tx.init(params))


def frozen(tx):
    return optax.partition({True: tx, False: optax.set_to_zero()}, lambda params: {'fc': True})


MOMENTUM = optax.trace(0.9)
OTHERS = [
    frozen(MOMENTUM),
    optax.scale_by_adam(),
    optax.apply_if_finite(MOMENTUM, 10),
    optax.scale(-0.1),
    optax.chain(optax.add_decayed_weights(1e-4, lambda p: {'fc': True}), optax.scale_by_lion()),
]


@pytest.mark.parametrize('other', OTHERS, ids=['partition', 'adam', 'finite', 'none', 'lion'])
def test_a_model_is_restored_without_its_optimizer(other, tmp_path):
    saved, sums = state(other, 5), {'loss': jnp.float32(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, (saved, sums), wait=True)
        like = (state(MOMENTUM, 0), {'loss': jnp.float32(0), 'top1': jnp.float32(0)})
        assert not checkpoints.fits(5, like)
        assert checkpoints.fits(5, (saved, sums))
        assert checkpoints.model_fits(5, like[0])
        restored, zeros = checkpoints.restore_model(5, like)
        assert_trees_equal(restored.params, saved.params)
        assert int(restored.step) == 5
        assert_trees_equal((restored.opt_state, zeros), (like[0].opt_state, like[1]))
        assert not checkpoints.model_fits(5, state(MOMENTUM, 0, width=4))
        with pytest.raises(ConfigError, match='Use the config that it was trained with'):
            checkpoints.restore_model(5, (state(MOMENTUM, 0, width=4), like[1]))


def test_another_metric_leaves_the_optimizer_as_it_is(tmp_path):
    setup = SimpleNamespace(plan=SimpleNamespace(num_train_steps=9))
    saved, total, notes = state(MOMENTUM, 5), Metrics.zero(), []
    saved = dataclasses.replace(saved, opt_state=jax.tree.map(jnp.ones_like, saved.opt_state))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, (saved, {'loss': jnp.float32(3)}), wait=True)
        given = state(MOMENTUM, 0), total, checkpoints, Workdir(tmp_path), notes
        restored = start.resume(setup, *given, new_optimizer=False)
    assert_trees_equal(restored, (saved, total))
    (note,) = notes
    assert note.startswith('The checkpoint has sums of other metrics; ')


def test_whether_the_model_fits_is_asked_of_a_good_checkpoint(tmp_path):
    setup, workdir = SimpleNamespace(init=lambda: state(MOMENTUM, 0)), Workdir(tmp_path)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, (state(MOMENTUM, step), {}), wait=True)
    (tmp_path / 'checkpoints/2/default/_METADATA').write_text('damaged')
    assert start.model_fits(workdir, setup)
    shutil.rmtree(tmp_path / 'checkpoints/1/default')
    with pytest.raises(ConfigError, match='All checkpoints'):
        start.model_fits(workdir, setup)


def test_states_without_arrays_may_differ(tmp_path):
    masked = optax.masked(optax.add_decayed_weights(1e-4), lambda p: {'fc': True})
    saved = state(optax.chain(optax.add_decayed_weights(1e-4), MOMENTUM), 5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, (saved, {}), wait=True)
        like = state(optax.chain(masked, MOMENTUM), 0)
        restored, _ = checkpoints.restore(5, (like, {}))
    assert jax.tree.structure(restored) == jax.tree.structure(like)
    assert_trees_equal(jax.tree.leaves(restored), jax.tree.leaves(saved))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('before', 'after'),
    [
        ({'optimizer.train_only': ('fc/*',)}, {'optimizer.train_only': ()}),
        ({}, {'optimizer.train_only': ('*/bn2/*',)}),
        ({'optimizer.name': 'adamw'}, {'optimizer.name': 'sgd'}),
        ({}, {'optimizer.decay_parameters': 'kernels'}),
        ({}, {'max_bad_steps': 10}),
    ],
    ids=lambda fields: '-'.join(fields),
)
def test_the_advice_to_allow_another_config_works(before, after, data_dir, tmp_path, capsys):
    config = load_config('digits_ssa20')
    config.model.name = 'ssa_resnet8'
    config.dataset.data_dir = str(data_dir)
    config.optimizer.schedule = 'constant'
    config.num_train_steps = 2
    config.update_from_flattened_dict(before)
    loop.train_and_evaluate(config, tmp_path / 'run')
    config.update_from_flattened_dict({**after, 'num_train_steps': 4})
    with pytest.raises(ConfigError, match='or pass --allow_config_change'):
        loop.train_and_evaluate(config, tmp_path / 'run')
    capsys.readouterr()
    trained = loop.train_and_evaluate(config, tmp_path / 'run', allow_config_change=True)
    assert int(trained.step) == 4
    anew = 'state of the optimizer does not fit; it starts anew' in capsys.readouterr().out
    assert anew == ('optimizer.decay_parameters' not in after)  # which has no state
    config.model.name = 'resnet8'
    with pytest.raises(ConfigError, match=r'Use a new workdir, or restore the old values\.$'):
        loop.train_and_evaluate(config, tmp_path / 'run')
