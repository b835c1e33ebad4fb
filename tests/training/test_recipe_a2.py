"""Twenty steps with recipe A2 of "ResNet strikes back" equal those of timm's parts, in float64."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ssanet_jax import create_model
from ssanet_jax.config import base
from ssanet_jax.training import mixing, steps
from ssanet_jax.training.ema import AveragedState, average
from ssanet_jax.training.losses import make_loss
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.optimizer import make_optimizer
from ssanet_jax.training.steps import TrainState
from ssanet_jax.weights import convert, from_torch, to_arrays
from tests.golden import rule
from tests.helpers import ROOT, float64, mesh_of, quickly

TIMM = json.loads((ROOT / 'tests/golden/recipes.json').read_text())['training']


def draws():
    """Mixup with 0.35, and the box of the same weight around (10, 20) in every second step."""
    box = mixing.box(jnp.asarray(0.35), 10, 20, 32, 32)
    blended = jnp.full((32, 32), 0.35), jnp.asarray(0.35)
    cut = 1.0 - box, jnp.mean(1.0 - box)
    return [cut if step % 2 else blended for step in range(20)]


def initial(plain, tx):
    shapes = convert.variable_shapes(plain, 32)
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.int8(0), leaf.shape), shapes)
    names = to_arrays(empty, plain, naming='timm')
    arrays = {
        name: rule.weight(name, a.shape)
        for name, a in names.items()
        if not name.endswith('num_batches_tracked')
    }
    variables = jax.tree.map(jnp.asarray, from_torch(arrays, plain, image_size=32, naming='timm'))
    state = TrainState(
        jnp.int32(0), variables['params'], variables['batch_stats'], tx.init(variables['params'])
    )
    return AveragedState.start(state)


@pytest.mark.slow
def test_twenty_steps_of_recipe_a2_equal_those_of_timm(monkeypatch):
    """Binary cross-entropy of mixed targets above 0.2, LAMB, and averaged weights.

    At a tenth of the recipe's learning rate: at 5e-3, rounding grows threefold per step here.
    """
    monkeypatch.setattr(
        convert, 'to_numpy', lambda value, *_: np.asarray(value)
    )  # would round to float32
    config = base().optimizer
    config.update({'name': 'lamb', 'decay_parameters': 'kernels'})
    config.update({'weight_decay': 0.02, 'clip_norm': 1.0})
    tx = make_optimizer(config, optax.constant_schedule(5e-4))
    plain = create_model('resnet18', num_classes=rule.CLASSES)

    def step(state, batch, share, weight):
        return steps.train_step(
            state,
            batch,
            objective=Objective(
                plain.clone(dtype=jnp.float64),
                make_loss('binary_cross_entropy', target_threshold=0.2),
                preprocess=lambda image: image,
                mixing=lambda key, height, width: (share, weight),
            ),
            tx=tx,
            average=lambda *args: average(*args, decay=lambda step: jnp.where(step < 1, 0.0, 0.9)),
        )

    mapped = jax.shard_map(
        step,
        mesh=mesh_of(1),
        in_specs=(P(), P('data'), P(), P()),
        out_specs=P(),
        check_vma=False,
    )
    losses = []
    with float64():
        state, train = initial(plain, tx), jax.jit(mapped, compiler_options=quickly(1))
        for number, draw in enumerate(draws()):
            batch = {
                'image': np.roll(rule.images(32), number, axis=2),
                'label': rule.labels(),
                'mask': np.ones(rule.BATCH, bool),
            }
            state, metrics = train(state, batch, *draw)
            losses.append(float(metrics.loss) / rule.BATCH)
    np.testing.assert_allclose(losses, TIMM['losses'], rtol=1e-6)
    for variables, name in ((state.variables, 'parameters'), (state.ema, 'averages')):
        arrays = to_arrays(jax.device_get(variables), plain, naming='timm')
        for key, expected in TIMM[name].items():
            np.testing.assert_allclose(rule.digest(arrays[key]), expected, rtol=1e-6, atol=1e-9)
