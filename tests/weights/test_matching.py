"""Prefixes of names, copies under prefixes, and counters among the weights."""

import numpy as np
import pytest

from ssanet_jax import create_model, weights
from ssanet_jax.weights import convert
from tests.helpers import assert_trees_equal
from tests.weights.bits import bits, random_bits


def small(**options):
    return create_model(
        'resnet18', num_classes=5, **{'stem': 'cifar', 'stage_sizes': (1, 1), 'width': 8, **options}
    )


@pytest.fixture(scope='module')
def arrays():
    return weights.to_arrays(random_bits(convert.variable_shapes(small())), small())


def read(state_dict, **options):
    said = []
    variables = weights.from_torch(state_dict, small(), say=said.append, **options)
    assert len(said) <= 1
    return variables, ''.join(said)


def with_prefix(prefix, state_dict):
    return {prefix + name: value for name, value in state_dict.items()}


@pytest.mark.parametrize(
    'prefix',
    [
        'module.',
        '_orig_mod.',
        'module._orig_mod.',
        'backbone.',
        'model.encoder.',
        'module.model.encoder._orig_mod.',
        'anything.',
    ],
)
def test_a_prefix_is_stripped_and_named(arrays, prefix):
    found, said = read(with_prefix(prefix, arrays))
    assert_trees_equal(bits(found), bits(read(arrays)[0]))
    assert said == f'Stripped the prefix {prefix} of the weights.'
    assert weights.num_classes(with_prefix(prefix, arrays), small()) == 5


def test_names_without_prefix_say_nothing(arrays):
    assert read(arrays)[1] == ''


def test_what_has_another_prefix_is_ignored_and_named(arrays):
    others = {'criterion.weight': np.ones(3), 'metric.total': np.ones(()), 'model.x': np.ones(1)}
    found, said = read({**with_prefix('model.net.', arrays), **others})
    assert_trees_equal(bits(found), bits(read(arrays)[0]))
    assert said == (
        'Stripped the prefix model.net. of the weights. Ignored criterion, metric, model.x.'
    )


@pytest.mark.parametrize('prefix', ['', 'model.'])
@pytest.mark.parametrize('averaged', ['ema_model.module.', 'ema.', 'swa_model.'])
def test_an_averaged_copy_among_the_names_is_a_choice(arrays, prefix, averaged, tmp_path):
    other = {name: np.asarray(-value) for name, value in arrays.items()}
    both = {**with_prefix(averaged, other), **with_prefix(prefix, arrays)}
    found, said = read(both)
    assert_trees_equal(bits(found), bits(read(arrays)[0]))
    part = averaged.rstrip('.')
    assert f'also has averaged weights, {part}: --config.init.part={part} ' in said
    path = tmp_path / 'both.safetensors'
    weights.save(path, both)
    found, said = read(weights.load(path, part=part))  # as the message says
    assert_trees_equal(bits(found), bits(read(other)[0]))


def test_two_networks_are_refused_until_one_is_named(arrays, tmp_path):
    other = {name: np.asarray(-value) for name, value in arrays.items()}
    both = {**with_prefix('module.encoder_q.', arrays), **with_prefix('module.encoder_k.', other)}
    message = r'several networks: module\.encoder_q, module\.encoder_k\. .*part=module\.encoder_q '
    with pytest.raises(ValueError, match=message):
        read(both)
    path = tmp_path / 'both.safetensors'
    weights.save(path, both)
    found, _ = read(weights.load(path, part='module.encoder_q'))
    assert_trees_equal(bits(found), bits(read(arrays)[0]))


def test_counters_are_ignored(arrays):
    counters = {
        'n_averaged': np.array(3),
        'total_ops': np.zeros(1),
        'layer1.0.total_params': np.zeros(1),
        'bn1.num_batches_tracked': np.array(9),
    }
    assert_trees_equal(bits(read({**arrays, **counters})[0]), bits(read(arrays)[0]))


@pytest.mark.parametrize('head', ['fc.1', 'fc.3.0', 'fc'])
def test_a_head_of_another_form_is_left_out_with_a_new_one(arrays, head):
    """As `model.fc = nn.Sequential(nn.Dropout(), nn.Linear(8, 10))`."""
    trunk = {name: value for name, value in arrays.items() if not name.startswith('fc.')}
    state = {**trunk, f'{head}.weight': np.zeros((10, 16)), f'{head}.bias': np.zeros(10)}
    found, _ = read(state, head=False)
    assert 'fc' not in found['params']
    if head != 'fc':
        with pytest.raises(ValueError, match=r'Only the classifier differs: --config\.init\.head='):
            read(state)


def test_names_of_a_hostile_file_are_escaped(arrays):
    with pytest.raises(ValueError, match=r'Unexpected: \\x1b\]0;x\\x07\.weight') as error:
        read({**arrays, '\x1b]0;x\x07.weight': np.ones(1)})
    assert str(error.value).isprintable()
