"""Mixing, micro-batches and averages within a training step."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import layers
from ssanet_jax.training import parallel, steps, trainer_setup
from ssanet_jax.training.ema import AveragedState, average
from ssanet_jax.training.losses import binary_cross_entropy, cross_entropy, on_mixed_targets
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.objective import Objective, mixing_key
from ssanet_jax.training.steps import TrainState
from tests.helpers import float64, mesh_of

RNG = np.random.default_rng(0)
BATCH = {
    'image': RNG.integers(0, 256, (16, 4, 4, 3), np.uint8),
    'label': RNG.integers(0, 5, 16, np.int32),
    'mask': np.arange(16) != 13,
}


def noise(key, height, width):
    """Mixes each pixel in another proportion."""
    share = jax.random.uniform(key, (height, width))
    return share, jnp.mean(share)


class Linear(nn.Module):
    """Logits that are linear in the pixels, with dropout."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(self.rate, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(5, name='fc', dtype=x.dtype, param_dtype=x.dtype)(x)


def scaled(image):
    return image.astype(jnp.float64) / 255


def run(
    num_devices=1,
    step=3,
    model=None,
    state=None,
    batch=None,
    loss=cross_entropy,
    mixing=None,
    seed=0,
    **options,
):
    """The state and the metrics after one step in float64, at another learning rate per step."""
    model, tx = model or Linear(), optax.sgd(1.0)
    objective = Objective(model, loss, scaled, mixing, seed)
    with float64():
        if state is None:
            params = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), train=False)['params']
            state = TrainState(jnp.int32(step), params, {}, tx.init(params))
        function = partial(steps.train_step, objective=objective, tx=tx, **options)
        train = parallel.parallel_train_step(function, mesh_of(num_devices))
        zero = Metrics.zero(options.get('metrics'))
        after, metrics = train(jax.tree.map(jnp.copy, state), batch or BATCH, zero)
        return jax.device_get(after), metrics.means()


def mixed_by_hand(num_devices, seed=7, step=3):
    """Mean cross-entropy of mixed dense targets, in NumPy, given the draw of the step."""
    with float64():
        share, weight = jax.device_get(noise(mixing_key(seed, jnp.int32(step)), 4, 4))
        model = Linear()
        params = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), train=False)['params']['fc']
    share = np.asarray(share, np.float64)[..., None]
    losses = []
    for shard in np.split(np.arange(16), num_devices):
        for example, partner in zip(shard, shard[::-1], strict=True):
            image, other = BATCH['image'][[example, partner]] / 255.0
            q = np.eye(5)[BATCH['label'][example]]
            if BATCH['mask'][partner]:
                image = share * image + (1 - share) * other
                q = weight * q + (1 - weight) * np.eye(5)[BATCH['label'][partner]]
            logits = image.ravel() @ np.asarray(params['kernel']) + np.asarray(params['bias'])
            if BATCH['mask'][example]:
                losses.append(-q @ (logits - np.log(np.exp(logits).sum())))
    return np.mean(losses)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_a_step_on_mixed_images_has_the_loss_of_an_equation(num_devices):
    _, metrics = run(num_devices, loss=on_mixed_targets(cross_entropy), mixing=noise, seed=7)
    assert metrics['loss'] == pytest.approx(mixed_by_hand(num_devices), rel=1e-6)
    assert metrics['num_examples'] == 15


@pytest.mark.parametrize('num_devices', [1, 2])
def test_micro_batches_equal_one_batch_where_there_is_no_batch_norm(num_devices):
    """With mixing across micro-batches, and one masked example."""
    options = {'loss': binary_cross_entropy, 'mixing': noise, 'seed': 7}
    (one, metrics), (four, metrics_of_four) = (
        run(num_devices, micro_batches=count, **options) for count in (1, 4)
    )
    assert metrics_of_four == pytest.approx(metrics, rel=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        one.params,
        four.params,
    )


def test_each_micro_batch_drops_other_features():
    """All four have the same images; without the others, each has another loss."""
    same = {name: np.concatenate([array[:4]] * 4) for name, array in BATCH.items()}
    losses = set()
    for part in range(4):
        batch = {**same, 'mask': np.arange(16) // 4 == part}
        losses.add(run(model=Linear(rate=0.5), micro_batches=4, batch=batch)[1]['loss'])
    assert len(losses) == 4


def test_running_statistics_move_once_per_micro_batch():
    """By momentum 0.9, with the means of the halves, as two forward passes in torch."""

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            norm = layers.BatchNorm(use_running_average=not train, momentum=0.9, name='bn')
            return norm(x.astype(jnp.float32)).mean(axis=(1, 2))

    model, tx = Normed(), optax.sgd(0.0)
    state = steps.init_state(0, model=model, tx=tx, image_size=4)
    step = partial(
        steps.train_step,
        objective=Objective(model, cross_entropy, lambda image: image.astype(jnp.float32)),
        tx=tx,
        micro_batches=2,
    )
    batch = {**BATCH, 'label': BATCH['label'] % 3, 'mask': np.ones(16, bool)}
    after, _ = parallel.parallel_train_step(step, mesh_of(1))(state, batch, Metrics.zero())
    expected = np.zeros(3)
    for half in np.split(batch['image'].astype(np.float64), 2):
        expected = 0.9 * expected + 0.1 * half.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(after.batch_stats['bn']['mean'], expected, rtol=1e-5)


def test_metrics_of_mixed_images_count_the_dominant_label():
    """Of the first half, which is mixed with the second."""
    batch = {**BATCH, 'label': np.repeat(np.int32([3, 4]), 8), 'mask': np.ones(16, bool)}

    def three(logits, label):
        return (label == 3) & (jnp.arange(16) < 8)

    def share_of_three(weight):
        _, metrics = run(
            batch=batch,
            loss=on_mixed_targets(cross_entropy),
            mixing=lambda key, height, width: (jnp.ones((height, width)), jnp.asarray(weight)),
            metrics={'three': three},
        )
        return metrics['three']

    assert (share_of_three(0.6), share_of_three(0.4)) == (50, 0)


def test_averages_follow_every_step():
    def decay(step):
        return jnp.where(step == 0, 0.0, 0.75)

    state, expected = None, None
    for number in range(4):
        if number == 0:
            with float64():
                variables = Linear().init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), train=False)
                plain = TrainState(jnp.int32(0), variables['params'], {}, optax.sgd(1.0).init({}))
                state = AveragedState.start(plain)
        state, _ = run(state=state, average=partial(average, decay=decay))
        bias = state.params['fc']['bias']
        expected = bias if expected is None else expected + 0.25 * (bias - expected)
        np.testing.assert_allclose(state.ema['params']['fc']['bias'], expected, rtol=1e-6)
    assert np.abs(bias - expected).max() > 1e-3


# Config fields that switch something on, each with a value that does.
SWITCHES = {
    'loss': 'binary_cross_entropy',
    'mix.mixup_alpha': 0.2,
    'mix.cutmix_alpha': 1.0,
    'micro_batches': 2,
    'ema.horizon': 0.1,
    'optimizer.clip_norm': 1.0,
    'optimizer.warmup_epochs': 2.0,
    'optimizer.floor': 0.1,
    'optimizer.cooldown_epochs': 1.0,
}


def lowered(config):
    setup = trainer_setup.build(config, num_classes=10, num_train_examples=1437, mesh=mesh_of(2))
    batch = {
        'image': np.zeros((64, 8, 8, 3), np.uint8),
        'label': np.zeros(64, np.int32),
        'mask': np.ones(64, bool),
    }
    shapes = jax.eval_shape(lambda: (setup.init(), batch, setup.zero_metrics()))
    return setup.train_step.lower(*shapes).as_text()


def test_a_step_with_everything_off_is_the_step_without_these_arguments(digits, monkeypatch):
    digits.model.name = 'resnet8'
    off, plain = lowered(digits), steps.train_step
    new = {'micro_batches', 'average'}

    def without(*args, **options):
        assert options.keys() >= new
        assert options['objective'].mixing is None
        return plain(*args, **{name: v for name, v in options.items() if name not in new})

    monkeypatch.setattr(steps, 'train_step', without)
    assert lowered(digits) == off


def test_each_field_that_is_on_makes_another_step(digits):
    digits.model.name = 'resnet8'
    off = lowered(digits)
    for name, value in SWITCHES.items():
        on = digits.copy_and_resolve_references()
        on.update_from_flattened_dict({name: value})
        assert lowered(on) != off, name
