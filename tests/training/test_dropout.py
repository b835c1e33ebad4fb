"""Dropout is a function of the seed, the step and the device alone."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import create_model
from ssanet_jax.analysis.interception import on_call
from ssanet_jax.training import parallel, steps
from ssanet_jax.training.losses import cross_entropy
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.steps import TrainState
from tests.helpers import mesh_of
from tests.models.test_network import SMALL, small


class Dropped(nn.Module):
    """Its first logit is the mean of a thousand ones after dropout."""

    @nn.compact
    def __call__(self, x, *, train):
        ones = nn.Dropout(0.5, deterministic=not train)(jnp.ones((x.shape[0], 1000)))
        bias = self.param('bias', nn.initializers.zeros, (2,))
        return jnp.stack([jnp.sum(ones, axis=1) / 1000, jnp.zeros(x.shape[0])], axis=1) + bias


def loss_of(step, seed, num_devices=1, first=0, last=8):
    """The loss of a training step on some of eight equal images, from zero parameters."""
    state = TrainState(
        step=jnp.asarray(step, jnp.int32),
        params={'bias': jnp.zeros(2)},
        batch_stats={},
        opt_state=optax.sgd(0.0).init({'bias': jnp.zeros(2)}),
    )
    batch = {
        'image': np.zeros((8, 4, 4, 3), np.float32),
        'label': np.ones(8, np.int32),
        'mask': (np.arange(8) >= first) & (np.arange(8) < last),
    }
    train_step = partial(
        steps.train_step,
        objective=Objective(Dropped(), cross_entropy, lambda image: image, seed=seed),
        tx=optax.sgd(0.0),
    )
    step = parallel.parallel_train_step(train_step, mesh_of(num_devices))
    _, metrics = step(state, batch, Metrics.zero())
    return float(metrics.loss)


def test_another_step_another_seed_and_another_device_drop_something_else():
    losses = [loss_of(7, 3), loss_of(8, 3), loss_of(7, 4)]
    losses += [loss_of(7, 3, 2, last=4), loss_of(7, 3, 2, first=4)]  # on either of two devices
    assert len(set(losses)) == 5


@pytest.mark.parametrize('name', SMALL)
def test_every_network_drops_features_before_its_last_layer(name):
    assert calls_of(small(name, dropout=0.3))[-2:] == [('drop', 0.3), ('fc', None)]


def test_vgg_drops_after_each_hidden_layer():
    head = [('fc1', None), ('drop_fc1', 0.3), ('fc2', None), ('drop_fc2', 0.3), ('fc', None)]
    assert calls_of(small('vgg16_bn', dropout=0.3).clone(stem='imagenet'))[-5:] == head


def calls_of(model):
    """Paths of the modules that a training step calls, with their rates of dropout."""
    calls = []

    def record(call):
        calls.append((call.path, getattr(call.module, 'rate', None)))
        return call()

    with on_call(record):
        images = jnp.ones((1, 16, 16, 3))
        jax.eval_shape(partial(model.init, train=True), jax.random.key(0), images)
    return calls


@pytest.mark.parametrize('rate', [0.0, 0.9])
def test_the_dropout_of_a_network_is_the_share_that_is_dropped(rate):
    """With a head of ones, logits are sums of the few features that dropout keeps."""
    model = create_model('mobilenet_v1', num_classes=1, dropout=rate, stage_sizes=(1,))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 16, 16, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    variables['params']['fc']['kernel'] = jnp.ones_like(variables['params']['fc']['kernel'])
    logits = [
        model.apply(
            variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(key)}
        )[0]
        for key in range(2)
    ]
    differences = np.abs(logits[0] - logits[1]).mean()
    assert (differences > 1) if rate else (differences == 0)
    model.apply(variables, x, train=False)  # needs no key, and drops nothing
