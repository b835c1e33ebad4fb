import json
import re
from functools import partial

import pytest

from ssanet_jax.attention import ATTENTION, SSABlock
from ssanet_jax.config import base, is_due, make_plan
from ssanet_jax.config.validation import changed_fields, check, check_overrides, unknown_field
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.optimizer import make_schedule
from ssanet_jax.training.trainer_setup import build_model
from ssanet_jax.weights.convert import variable_shapes
from tests.helpers import ROOT, load_config, with_fields

RECIPES = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))


@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe_is_valid_and_names_its_own_command(name):
    config = load_config(name)
    check(config)
    build_model(config, num_classes=10)
    text = (ROOT / 'configs' / f'{name}.py').read_text()
    assert f'ssanet train --config={name} --workdir=' in text
    imports = re.findall(r'^(?:from|import) (\S+)', text, re.MULTILINE)
    assert set(imports) <= {'ml_collections', 'ssanet_jax.config'}


def test_a_block_given_from_python_takes_the_place_of_a_named_one():
    mine = partial(SSABlock, squeeze='max', name='mine')
    config = with_fields(model__name='resnet20', model__batch_norm_momentum=0.8)
    config.model.attention_stages = (1,)
    model = build_model(config, 10, attention=mine)
    params = variable_shapes(model)['params']
    assert {place for place in params if 'mine' in params[place]} == {
        'layer1_0',
        'layer1_1',
        'layer1_2',
    }
    block = model.attention(parent=None)
    assert (block.squeeze, block.norm_factory(parent=None).momentum) == ('max', 0.8)

    config.model.name = 'ssa_resnet20'
    with pytest.raises(
        ConfigError, match=r"attention=.*contradicts .*ssa_resnet20; use 'resnet20'"
    ):
        build_model(config, 10, attention=mine)


def test_the_large_batch_recipe_has_the_learning_rates_of_its_paper():
    """Goyal et al. 2017: 0.1 kn/256, five epochs of warm-up, a tenth at epochs 30, 60 and 80."""
    config = load_config('imagenet_ssa50_large_batch')
    plan = make_plan(config, 1_281_167)
    assert plan.num_train_steps == round(90 * 1_281_167 / 8192) == 14_075
    schedule = make_schedule(config.optimizer, plan)
    rates = {2.5: 1.6, 5: 3.2, 29.9: 3.2, 30.1: 0.32, 59.9: 0.32, 60.1: 0.032, 80.1: 0.0032}
    for epoch, rate in rates.items():
        assert schedule(round(epoch * 1_281_167 / 8192)) == pytest.approx(rate, rel=1e-5)
    for batch, peak in ((256, 0.1), (1024, 0.4), (2048, 0.8)):
        config.batch_size = batch
        assert make_plan(config, 1_281_167).peak_learning_rate == pytest.approx(peak)


# Settings of the authors' released code.
@pytest.mark.parametrize(
    ('data', 'batch', 'epochs', 'decay', 'boundaries'),
    [
        ('imagenet', 128, 100, 1e-4, (30, 60, 90)),
        ('cifar10', 100, 250, 5e-4, (50, 100, 150, 200)),
        ('cifar100', 100, 250, 5e-4, (50, 100, 150, 200)),
    ],
)
@pytest.mark.parametrize('model', ['ssa50', 'se50', 'resnet50'])
def test_recipes_are_those_of_the_released_code(data, batch, epochs, decay, boundaries, model):
    config = load_config(f'{data}_{model}')
    optimizer = config.optimizer
    assert (config.batch_size, optimizer.reference_batch_size, config.num_epochs) == (
        batch,
        batch,
        epochs,
    )
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ('sgd', 0.9, False)
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.decay_factor) == (
        0.1,
        'step',
        0.1,
    )
    assert (optimizer.weight_decay, optimizer.decay_parameters) == (decay, 'all')
    assert tuple(optimizer.decay_epochs) == boundaries
    assert config.model.name == {'ssa50': 'ssa_resnet50', 'se50': 'se_resnet50'}.get(
        model, 'resnet50'
    )
    if data != 'imagenet':
        assert (config.dataset.mean, config.dataset.std) == (
            (0.4914, 0.4822, 0.4465),
            (0.2023, 0.1994, 0.2010),
        )
        assert (config.dataset.crop_padding, config.dataset.flip, config.model.stem) == (
            4,
            True,
            'cifar',
        )


def test_learning_rate_scales_with_the_batch():
    plan = make_plan(with_fields(batch_size=512), 1_281_167)
    assert plan.peak_learning_rate == pytest.approx(0.4)
    assert plan.num_train_steps == round(100 * 1_281_167 / 512)


def test_number_of_steps_overrides_epochs():
    plan = make_plan(with_fields(num_train_steps=7, eval_every_steps=3), 1280)
    assert plan[:3] == (10, 7, 3)


def test_an_override_after_the_end_of_the_run_is_allowed_in_a_recipe():
    """A recipe's decay epochs remain valid when the run is shortened."""
    config = with_fields(num_epochs=50.0)
    check_overrides(config, ['num_epochs'])
    with pytest.raises(ConfigError, match='extends past the end of the run'):
        check_overrides(config, ['optimizer.decay_epochs'])


@pytest.mark.parametrize('crop', ['train_crop', 'eval_crop'])
def test_a_field_read_with_several_settings_needs_one_of_them(crop):
    config = with_fields(dataset__train_crop='padded', dataset__eval_crop='whole')
    with pytest.raises(ConfigError, match=r"train_crop='padded' and .*eval_crop='whole'; remove"):
        check_overrides(config, ['dataset.interpolation'])
    config.dataset[crop] = base().dataset[crop]
    check_overrides(config, ['dataset.interpolation'])


def test_a_field_of_the_recipe_may_lose_its_effect_by_an_override():
    config = load_config('cifar10_ssa50')
    config.optimizer.schedule = 'cosine'
    check(config)
    check_overrides(config, ['optimizer.schedule'])


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'model__name': 'ssa_vgg16_bn', 'model__tail': 'plain'}, "No option of .* called 'tail'"),
        ({'model__name': 'resnet50', 'model__attention_stages': (4,)}, 'has no attention'),
        ({'model__attention_stages': (7,)}, 'names stage 7; the stages are 1, 2, 3, 4'),
        ({'model__ssa__num_groups': 3}, 'num_groups=3.* cannot split 256 channels'),
        ({'model__ssa__squeeze': 'median'}, "choose one of 'mean', 'max'"),
        ({'model__name': 'cbam_resnet50', 'model__cbam__kernel_size': 4}, 'choose an odd one'),
    ],
)
def test_options_that_the_network_lacks_are_refused_in_one_line(fields, message):
    with pytest.raises(ConfigError, match=message) as error:
        build_model(with_fields(**fields), num_classes=10)
    assert '\n' not in str(error.value)


def test_fields_of_the_config_reach_the_network():
    model = build_model(
        with_fields(
            model__name='ssa_googlenet',
            model__dropout=0.3,
            model__batch_norm_epsilon=1e-4,
            model__attention_stages=(2,),
            model__attention_blocks=(-1,),
            model__ssa__gate_scale=2.0,
        ),
        num_classes=10,
    )
    assert (model.dropout, model.attention_stages, model.attention_blocks) == (0.3, (2,), (-1,))
    assert model.norm(use_running_average=True).epsilon == 1e-4
    assert model.attention(parent=None).gate_scale == 2


def test_fields_of_the_config_reach_a_resnet():
    model = build_model(
        with_fields(
            model__name='ssa_resnet18',
            model__stem='deep',
            model__stochastic_depth=0.1,
            model__remat=(1, 2),
        ),
        num_classes=10,
    )
    assert (model.stem, model.stochastic_depth, model.remat) == ('deep', 0.1, (1, 2))


def test_every_attention_has_its_options_with_its_defaults_in_the_config():
    model = base().model
    assert model.gssa.group_size == 32
    assert model.ssa.to_dict() == {
        'squeeze': 'mean',
        'combine': 'sum',
        'num_groups': 1,
        'group_size': 0,
        'gate_scale': 1.0,
        'zero_init': False,
    }
    assert model.se.to_dict() == {'ratio': 16}
    assert set(model.to_dict()) >= set(ATTENTION)


def test_a_field_newer_than_the_run_had_its_default():
    config = load_config('digits_ssa20')
    saved = json.loads(config.to_json_best_effort())
    del saved['init'], saved['model']['eca']
    assert changed_fields(config, saved) == ([], [])
    config.model.eca.kernel_size = 5
    assert changed_fields(config, saved) == (['model.eca.kernel_size was 0 and is 5'], [])


def test_a_resumed_run_may_change_its_length_but_not_its_meaning():
    config = load_config('digits_ssa20')
    config.optimizer.schedule = 'constant'  # a cosine's learning rates follow from the length
    saved = json.loads(config.to_json_best_effort())
    config.num_epochs = 90.0
    config.dataset.data_dir = '/elsewhere'
    harmless = [
        "dataset.data_dir was None and is '/elsewhere'",
        'num_epochs was 60.0 and is 90.0',
    ]
    assert changed_fields(config, saved) == ([], harmless)
    config.seed = 5
    config.model.name = 'resnet20'
    grave = ["model.name was 'ssa_resnet20' and is 'resnet20'", 'seed was 0 and is 5']
    assert changed_fields(config, saved) == (grave, harmless)


def test_epochs_end_on_the_step_nearest_to_them():
    """50,000 images in steps of 96: the sixth epoch is exactly 3,125 steps."""
    every = make_plan(with_fields(batch_size=96), 50_000).eval_every_steps
    due = [step for step in range(1, 3200) if is_due(step, every)]
    assert due == [-(-epoch * 50_000 // 96) for epoch in range(1, 7)]


def test_a_profile_after_the_last_step_is_refused():
    with pytest.raises(ConfigError, match='comes after the last step, 50'):
        make_plan(with_fields(profile_start_step=51, num_train_steps=50), 1280)


def test_a_warm_up_as_long_as_the_run_is_refused():
    config = with_fields(optimizer__warmup_epochs=5.0, num_train_steps=50)
    with pytest.raises(ConfigError, match='are 50 steps, but the run has 50'):
        make_plan(config, 1280)


def test_the_nearest_names_of_an_unknown_field_are_given():
    assert 'nearest: batch_size' in unknown_field('batch_siz')
    assert 'nearest: optimizer.learning_rate' in unknown_field('learning_rate')
