"""Training with folded and with plain tails is the same training."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import create_model, data
from ssanet_jax.models.residual_block import Bottleneck
from ssanet_jax.pretrained.preprocessing import normalize
from ssanet_jax.training import parallel, steps, trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.losses import cross_entropy
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.monitoring import console
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.steps import init_state
from ssanet_jax.training.storage.workdir import Workdir, metrics_line
from tests.helpers import load_config, mesh_of, train_in_float64

TX = optax.sgd(0.05, momentum=0.9)


def network(tail, dtype=jnp.float32):
    """Four SSA bottlenecks for digits of 8x8."""
    return create_model(
        'ssa_resnet20',
        num_classes=10,
        block=Bottleneck,
        width=8,
        stage_sizes=(1, 2, 1),
        projection=True,
        dtype=dtype,
        tail=tail,
    )


@pytest.mark.slow
def test_fifty_steps_are_the_same(digits):
    """In float64: training amplifies the rounding of float32 until it shows."""
    folded, plain = (
        train_in_float64(network(tail, jnp.float64), digits, 50) for tail in ('folded', 'plain')
    )
    assert plain[-1] < 0.8 * plain[0]
    np.testing.assert_allclose(folded, plain, rtol=1e-7)


@pytest.mark.slow
def test_training_resumes_in_the_other_form(digits, tmp_path):
    """Either form restores the checkpoint of the other and computes the same losses."""
    batches = list(itertools.islice(data.train_batches(digits), 6))
    saved = ('folded', 'plain')
    for tail in saved:
        state, _ = train(network(tail), start(network(tail)), batches[:4])
        with Checkpoints(tmp_path / tail) as checkpoints:
            checkpoints.save(4, (state, Metrics.zero()))
    losses = {}
    for written, read in itertools.product(saved, saved):
        model = network(read)
        with Checkpoints(tmp_path / written) as checkpoints:
            state, _ = checkpoints.restore(4, (start(model), Metrics.zero()))
        _, losses[written, read] = train(model, state, batches[4:])
    for written in saved:
        folded, plain = losses[written, 'folded'], losses[written, 'plain']
        assert len(plain) == 2
        np.testing.assert_allclose(folded[0], plain[0], rtol=1e-5)  # the same state
        np.testing.assert_allclose(folded[1], plain[1], rtol=1e-3)  # after a step of either


def start(model):
    return jax.jit(partial(init_state, model=model, tx=TX, image_size=8), static_argnums=0)(0)


def train(model, state, batches):
    """Trains in float32 on one device; returns the last state and the loss of each step."""
    mesh = mesh_of(1)
    preprocess = partial(normalize, mean=(0.3,) * 3, std=(0.4,) * 3)
    objective = Objective(model, cross_entropy, preprocess)
    step = parallel.parallel_train_step(partial(steps.train_step, objective=objective, tx=TX), mesh)
    state = jax.device_put(state, parallel.replicated(mesh))
    losses = []
    for batch in parallel.to_devices(batches, mesh):
        state, metrics = step(state, batch, Metrics.zero())
        losses.append(metrics.means()['loss'])
    return state, losses


def test_tails_are_reported_for_the_images_of_one_micro_batch(monkeypatch, tmp_path):
    config = load_config('digits_ssa20')
    config.model.name, config.batch_size, config.micro_batches = 'ssa_resnet8', 64, 4
    setup = trainer_setup.build(config, num_classes=10, num_train_examples=100, mesh=mesh_of(2))
    workdir = Workdir(tmp_path)
    values = {'loss': 1.0, 'top1': 50.0, 'top5': 90.0, 'num_examples': 9}
    workdir.metrics.write_text(metrics_line(1, 'eval', **values))
    seen = []

    def count(model, image_size, images):
        seen.append(images)
        return {'folded': 0, 'plain': 3}

    monkeypatch.setattr(console, 'count_tails', count)
    console.finish(console.make_console(), config, setup, workdir)
    assert seen == [64 // 2 // 4]
