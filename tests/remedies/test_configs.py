"""The remedies in messages about the fields of a config."""

import ast
import re

import pytest

from ssanet_jax.attention import ATTENTION
from ssanet_jax.config import base, make_plan
from ssanet_jax.config.field import Check
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.config.validation import (
    check,
    check_batch_norm_group_size,
    check_batch_size,
    check_names,
    check_overrides,
    unknown_field,
)
from ssanet_jax.training.trainer_setup import build_model
from tests.config.malformed import OUT_OF_RANGE
from tests.helpers import with_fields
from tests.remedies.helpers import after, listed, refused

# A value for each description of the allowed ones, as 'a value above 0'.
EXAMPLES = {'above 0': 1, 'other than None': 'weights.safetensors'}
LIMITED = [name for name, field in FIELDS.items() if field.only_with]


@pytest.mark.parametrize('name', LIMITED)
def test_a_field_has_an_effect_as_its_message_says(name):
    config = base()
    for other, wanted in FIELDS[name].only_with.items():
        config.update_from_flattened_dict({other: _unwanted(other, wanted)})
    message = refused('has no effect with', check_overrides, config, [name])
    assert '; remove it, or set ' in message
    check_overrides(config, [])  # removed
    field, value = re.search(r'or set config\.(\S+) to (.+)\.$', message).groups()
    if value.startswith('a value starting with '):
        value = repr(f'{value.removeprefix("a value starting with ")}resnet50')
    if value.startswith('a value of '):
        value = repr(re.split(', | or ', value.removeprefix('a value of '))[0])
    meaning = value.removeprefix('a value ')
    value = EXAMPLES[meaning] if meaning in EXAMPLES else ast.literal_eval(value)
    config.update_from_flattened_dict({field: value})
    check_overrides(config, [name])


def _unwanted(name, wanted):
    """A value with which the field has no effect."""
    field = FIELDS[name]
    if isinstance(wanted, Check):
        refused_ones = [value for value in field.choices if not wanted.holds(value)]
        known = {'profile_start_step': -1, 'init.weights': None, 'model.name': 'resnet50'}
        known['dataset.initial_size'] = -1
        return known.get(name, refused_ones[0] if refused_ones else 0.0)
    others = [value for value in field.choices if value != wanted]
    if others or isinstance(wanted, bool):
        return others[0] if others else not wanted
    return 'digits' if field.value_type is str else 7


CHOSEN = [name for name, field in FIELDS.items() if field.choices]


@pytest.mark.parametrize('name', CHOSEN)
def test_each_choice_that_is_listed_is_one(name):
    message = refused('is unknown; choose ', FIELDS[name].verify, 'nonsense')
    choices = listed('choose one of ', message)
    assert len(choices) > 1
    for choice in choices:
        FIELDS[name].verify(choice)


NUMBERS = [f for f in FIELDS.values() if f.value_type in (int, float) and not f.is_tuple]
RANGED = [f.name for f in NUMBERS if f.check and f.name in OUT_OF_RANGE]


@pytest.mark.parametrize('name', RANGED)
def test_the_limits_of_a_range_are_allowed(name):
    field = FIELDS[name]
    message = refused(
        'is out of range; it must be ', field.verify, field.value_type(float(OUT_OF_RANGE[name]))
    )
    expected = message.partition('it must be ')[2]
    numbers = [float(number) for number in re.findall(r'-?\d+(?:\.\d+)?(?:e-?\d+)?', expected)]
    assert numbers, message
    strict = re.findall(r'above (\S+?)[,.]|below (\d+)', f'{expected}.')
    excluded = {float(a or b) for a, b in strict}
    for number in set(numbers) - excluded:
        field.verify(field.value_type(number))
    for number in excluded:
        inside = number + 1e-3 if f'above {number:g}' in expected else number - 1e-3
        field.verify(field.value_type(inside) if field.value_type is float else number + 1)


def test_a_value_of_the_type_that_is_asked_for_is_allowed():
    for name, wrong, right in (
        ('batch_size', 64.0, 64),
        ('dataset.flip', 'yes', True),
        ('num_epochs', 'many', 3),
        ('model.name', '', 'resnet50'),
        ('dataset.mean', 0.5, (0.5, 0.5, 0.5)),
    ):
        refused('has the wrong type; give ', FIELDS[name].verify, wrong)
        FIELDS[name].verify(right)


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('lerning_rate', 'optimizer.learning_rate'),
        ('optimizer.lr_schedule', 'optimizer.schedule'),
        ('dataset.datadir', 'dataset.data_dir'),
        ('momentum', 'optimizer.momentum'),
        ('image_size', 'dataset.image_size'),
        ('model.ssa.groups', 'model.ssa.num_groups'),
    ],
)
def test_the_three_nearest_fields_exist(name, meant):
    names = listed('nearest: ', unknown_field(name))
    assert meant in names
    assert len(names) == 3
    assert set(names) <= set(FIELDS)


def test_a_group_names_one_of_its_fields():
    for group in (
        'model',
        'dataset',
        'optimizer',
        'init',
        *(f'model.{kind}' for kind in ATTENTION),
    ):
        if any(name.startswith(f'{group}.') for name in FIELDS):
            assert after('set one of them, as config.', unknown_field(group)) in FIELDS


def test_a_recipe_starts_from_base():
    config = base()
    del config.seed
    refused('is missing; start the recipe from base()', check_names, config)
    check_names(base())


@pytest.mark.parametrize('devices', [3, 8, 200])
def test_batches_of_the_sizes_that_are_named_split(devices):
    message = refused(
        'cannot be split over', check_batch_size, with_fields(batch_size=100), devices
    )
    for size in re.findall(r'\d+', message.rpartition('fit')[2]):
        check_batch_size(with_fields(batch_size=int(size)), devices)


def test_the_groups_of_devices_that_are_named_divide_them():
    config = with_fields(model__batch_norm_group_size=3)
    message = refused('does not divide', check_batch_norm_group_size, config, 8)
    sizes = listed('choose one of ', message)
    assert sizes == ['1', '2', '4', '8', '-1 for all']
    for size in sizes:
        config.model.batch_norm_group_size = int(size.split()[0])
        check_batch_norm_group_size(config, 8)


def test_a_padding_below_the_image_size_is_allowed():
    config = with_fields(
        dataset__train_crop='padded', dataset__crop_padding=9, dataset__image_size=9
    )
    size = after(
        'choose less than config.dataset.image_size=', refused('allows crops', check, config)
    )
    config.dataset.crop_padding = int(size) - 1
    check(config)


def test_sizes_that_grow_are_allowed_as_the_messages_say():
    config = with_fields(dataset__train_crop='padded', dataset__initial_size=160)
    refused("'padded', whose crops have the size", check, config)
    check(with_fields(dataset__train_crop='resized', dataset__initial_size=160))
    check(with_fields(dataset__train_crop='padded', dataset__initial_size=-1))
    refused('choose a smaller initial_size', check, with_fields(dataset__initial_size=225))
    config = with_fields(dataset__initial_size=160, dataset__cutout=160)
    size = after('initial_size=', refused('erases whole crops of the first', check, config))
    config.dataset.cutout = int(size) - 2  # even
    check(config)


def test_a_network_whose_parameters_depend_on_the_size_has_one_size():
    config = with_fields(
        model__name='ge_resnet20', model__ge__gather='conv', dataset__image_size=16
    )
    config.dataset.eval_size = 8
    refused('depend on the size of its images; leave', build_model, config, 10)
    config.dataset.eval_size = -1
    build_model(config, 10)
    config.dataset.eval_size, config.model.name = 8, 'se_resnet20'
    build_model(config, 10)


def test_as_many_images_as_are_named_fit():
    config = with_fields(batch_size=2**20, dataset__image_size=4096)
    message = refused('pixels exceed 2**36', check, config)
    config.batch_size = int(re.search('at most (.+) images', message)[1])
    check(config)
    config.batch_size += 1
    refused('choose at most', check, config)


def test_decays_after_the_warm_up_and_a_shorter_warm_up_are_allowed():
    config = with_fields(optimizer__warmup_epochs=30.0)
    refused('begins inside the warm-up', check, config)
    check(with_fields(optimizer__warmup_epochs=29.0))
    check(with_fields(optimizer__warmup_epochs=30.0, optimizer__decay_epochs=(31.0, 60.0)))


def test_the_choice_of_cutmix_has_an_effect_with_both_alphas():
    config = with_fields(mix__mixup_alpha=0.2)
    refused('set both to values above 0', check_overrides, config, ['mix.switch_prob'])
    config.mix.cutmix_alpha = 1.0
    check_overrides(config, ['mix.switch_prob'])


def test_decays_before_the_end_are_allowed():
    config = with_fields(num_epochs=50.0)
    message = refused('extends past the end', check_overrides, config, ['optimizer.decay_epochs'])
    end = float(re.search(r'config.num_epochs=([\d.]+)', message)[1])
    config.optimizer.decay_epochs = tuple(e for e in config.optimizer.decay_epochs if e < end)
    check_overrides(config, ['optimizer.decay_epochs'])


def test_a_shorter_warm_up_and_a_longer_run_are_allowed():
    config = with_fields(optimizer__warmup_epochs=5.0, num_train_steps=50)
    refused('shorten the warm-up or lengthen the run', make_plan, config, 1280)
    assert make_plan(with_fields(optimizer__warmup_epochs=4.0, num_train_steps=50), 1280)
    assert make_plan(with_fields(optimizer__warmup_epochs=5.0, num_train_steps=51), 1280)


def test_the_profile_may_start_with_the_step_that_is_named():
    config = with_fields(profile_start_step=51, num_train_steps=50)
    message = refused('comes after the last step', make_plan, config, 1280)
    config.profile_start_step = int(after('the last step, ', message))
    assert make_plan(config, 1280)
