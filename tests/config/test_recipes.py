"""Modern recipes have the published settings, learning rates and sizes."""

import math

import numpy as np
import pytest

from ssanet_jax.config import base, cifar, make_plan
from ssanet_jax.config.defaults import flatten
from ssanet_jax.config.sizes import train_size
from ssanet_jax.config.validation import check_overrides
from ssanet_jax.pretrained.preprocessing import Preprocessing
from ssanet_jax.training.optimizer import make_schedule
from tests.config.test_config import RECIPES
from tests.helpers import load_config

IMAGENET, CIFAR = 1_281_167, 50_000


def rates(config, examples, epochs):
    """The learning rates at some epochs, at the nearest steps."""
    plan = make_plan(config, examples)
    schedule = make_schedule(config.optimizer, plan)
    return [float(schedule(round(epoch * plan.steps_per_epoch))) for epoch in epochs]


@pytest.mark.parametrize('name', RECIPES)
def test_every_setting_of_a_recipe_has_an_effect(name):
    dataset, _, _ = name.partition('_')
    plain = flatten(cifar(dataset) if dataset.startswith('cifar') else base())
    config = flatten(load_config(name))
    changed = [field for field in config if config[field] != plain[field]]
    check_overrides(load_config(name), changed)


# Wightman et al. 2021, table 2. Epochs, learning rate, weight decay, smoothing, stochastic depth,
# repeated augmentation (of 3), magnitude of RandAugment, alpha of mixup, training size.
@pytest.mark.parametrize(
    ('name', 'row'),
    [
        ('a1', (600, 5e-3, 0.01, 0.1, 0.05, 3, 7, 0.2, 224)),
        ('a2', (300, 5e-3, 0.02, 0.0, 0.05, 3, 7, 0.1, 224)),
        ('a3', (100, 8e-3, 0.02, 0.0, 0.0, 1, 6, 0.1, 160)),
    ],
)
def test_a1_to_a3_are_those_of_resnet_strikes_back(name, row):
    config = load_config(f'imagenet_ssa50_{name}')
    epochs, peak, decay, smoothing, depth, repeats, magnitude, mixup, size = row
    data, optimizer = config.dataset, config.optimizer
    assert (config.num_epochs, config.batch_size) == (epochs, 2048)
    assert (optimizer.name, optimizer.weight_decay) == ('lamb', decay)
    assert (config.loss, config.label_smoothing) == ('binary_cross_entropy', smoothing)
    assert (config.model.stochastic_depth, data.repeats) == (depth, repeats)
    assert data.augment == f'rand-m{magnitude}-mstd0.5-inc1'
    assert (config.mix.mixup_alpha, config.mix.cutmix_alpha) == (mixup, 1)
    assert (data.image_size, data.eval_size if name == 'a3' else data.image_size) == (size, 224)
    assert (data.random_erasing, config.ema.horizon) == (0, 0)
    assert Preprocessing.from_config(data).resize == 235  # as in timm, which rounds 224 / 0.95 down
    half = 1e-6 + (peak - 1e-6) * (1 + math.cos(math.pi / 2)) / 2
    expected = [1e-4, peak, half, 1e-6]
    found = rates(config, IMAGENET, (0, 5, (5 + epochs) / 2, epochs))
    assert found == pytest.approx(expected, rel=1e-4)
    config.batch_size = 1024
    assert make_plan(config, IMAGENET).peak_learning_rate == pytest.approx(peak / 2)


# rn50_configs/rn50_*_epochs.yaml of libffcv/ffcv-imagenet: start_ramp, end_ramp; the batch is
# that of 8 processes of 512.
@pytest.mark.parametrize(('epochs', 'ramp'), [(16, (11, 13)), (40, (29, 34)), (88, (65, 76))])
def test_fast_recipes_are_those_of_ffcv(epochs, ramp):
    config = load_config(f'imagenet_ssa50_fast{epochs}')
    data, optimizer = config.dataset, config.optimizer
    assert (config.num_epochs, config.batch_size, config.label_smoothing) == (epochs, 4096, 0.1)
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ('sgd', 0.9, False)
    assert (optimizer.weight_decay, data.eval_size, data.eval_flip) == (1e-4, 256, True)
    assert data.eval_crop_pct == 224 / 256
    at = (0, 1, 2, epochs / 2, epochs - 1, epochs)
    expected = np.interp(at, (0, 2, epochs), (1e-4 * 1.7, 1.7, 0))  # get_cyclic_lr
    assert rates(config, IMAGENET, at) == pytest.approx(expected, rel=1e-2, abs=1e-6)
    sizes = [train_size(data, epoch) for epoch in range(epochs)]
    assert sizes[: ramp[0] + 1] == [160] * (ramp[0] + 1)
    assert sizes[ramp[1] :] == [192] * (epochs - ramp[1])
    assert set(sizes) == {160, 192}


def test_torchvision2_is_the_recipe_of_its_weights():
    """References' flags: --lr 0.5 --lr-warmup-epochs 5 --weight-decay 0.00002 --ra-reps 4 ..."""
    config = load_config('imagenet_ssa50_torchvision2')
    data, optimizer = config.dataset, config.optimizer
    assert (config.num_epochs, config.batch_size, config.label_smoothing) == (600, 8 * 128, 0.1)
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ('sgd', 0.9, False)
    assert (optimizer.weight_decay, optimizer.decay_parameters) == (2e-5, 'kernels')
    assert (data.augment, data.random_erasing, data.repeats) == ('trivial_wide', 0.1, 4)
    assert (config.mix.mixup_alpha, config.mix.cutmix_alpha) == (0.2, 1)
    assert (data.image_size, data.eval_size, data.eval_size / data.eval_crop_pct) == (176, 224, 232)
    found = rates(config, IMAGENET, (0, 5, 302.5, 600))
    assert found == pytest.approx([0.005, 0.5, 0.25, 0], rel=1e-4, abs=1e-8)
    # Averages move by 1 - decay, times the batch, 32 steps and 1 / epochs, once per 32 steps.
    moves = (1 - 0.99998) * 1024 * 32 / 600
    horizon = 32 / moves / make_plan(config, IMAGENET).num_train_steps
    assert config.ema.horizon == pytest.approx(horizon, rel=0.01)


@pytest.mark.parametrize(('data', 'side'), [('cifar10', 16), ('cifar100', 8)])
def test_cifar_recipes_are_those_of_page_and_of_cutout(data, side):
    short, long = (load_config(f'{data}_ssa18_{epochs}') for epochs in (30, 200))
    at = (0, 4, 8, 19, 29)
    expected = np.interp(at, (0, 8, 30), (0, 0.4, 0))  # PiecewiseLinear([0, 8, 30], [0, 0.4, 0])
    assert rates(short, CIFAR, at) == pytest.approx(expected, rel=1e-2)
    assert (short.batch_size, short.dataset.cutout, long.dataset.cutout) == (512, 8, side)
    at = {0: 0.1, 59.9: 0.1, 60.1: 0.02, 120.1: 0.004, 160.1: 0.0008, 199.9: 0.0008}
    assert rates(long, CIFAR, at) == pytest.approx(list(at.values()), rel=1e-5)
    for config in (short, long):
        assert (config.optimizer.nesterov, config.optimizer.weight_decay) == (True, 5e-4)


@pytest.mark.parametrize('plain', ['digits_ssa20', 'fashion_mnist_ssa20'])
def test_a_small_modern_recipe_takes_as_many_steps_as_the_plain_one(plain):
    """benchmarks/recipes.py compares them."""
    pair = [load_config(plain), load_config(f'{plain}_modern')]
    assert len({(config.batch_size, config.num_epochs) for config in pair}) == 1
    assert len({config.model.name for config in pair}) == 1
