"""Weights among all else that training scripts save; the contents are plain Python and NumPy."""

import argparse

import numpy as np
import pytest

from ssanet_jax.weights.checkpoint_parts import select
from ssanet_jax.weights.torch_file import Opaque


def weights(value=1.0):
    return {'conv1.weight': np.full((2, 3, 1, 1), value), 'bn1.bias': np.full(2, value)}


BESIDE = {
    'epoch': 3,
    'best_acc': 71.5,
    'args': argparse.Namespace(lr=0.1),
    'optimizer': {'state': {0: {'momentum_buffer': np.ones(2)}}, 'param_groups': [{'lr': 0.1}]},
    'scaler': {'scale': 65536.0},
}


def take(content, part=None):
    said = []
    found = select(content, part, 'x.pth', said.append)
    assert len(said) <= 1
    return float(found['bn1.bias'][0]), ''.join(said)


@pytest.mark.parametrize(
    'keys',
    [
        ('state_dict',),
        ('model_state_dict',),
        ('model_state',),
        ('model',),
        ('network',),
        ('net',),
        ('params',),
        ('weights',),
        ('module',),
        ('student',),
        ('state', 'model'),
        ('model', 'state_dict'),
        ('checkpoint', 'net', 'module'),
    ],
    ids='.'.join,
)
def test_weights_are_found_and_what_is_beside_them_is_named(keys):
    content = weights()
    for key in reversed(keys):
        content = {key: content}
    value, said = take({**BESIDE, **content})
    assert value == 1
    assert said == (
        f'x.pth: took {".".join(keys)}. Ignored epoch, best_acc, args, optimizer, scaler.'
    )


def test_a_file_of_weights_alone_is_not_commented():
    assert take(weights()) == (1, '')


def test_what_is_between_the_weights_is_ignored():
    value, said = take({**weights(), 'epoch': 3, 'args': argparse.Namespace()})
    assert (value, said) == (1, 'x.pth: Ignored epoch, args.')


def test_a_tuple_of_state_dicts_is_read():
    value, said = take((weights(), {'state': {}, 'param_groups': [{'lr': 0.1}]}))
    assert (value, said) == (1, 'x.pth: took 0. Ignored 1.')


@pytest.mark.parametrize(
    'averaged',
    [
        'ema',
        'model_ema',
        'ema_model',
        'state_dict_ema',
        'ema_state_dict',
        'swa_model',
        'averaged_model',
        'avg',
        'shadow',
    ],
)
def test_averaged_weights_are_a_choice(averaged):
    content = {averaged: weights(2), 'model': weights(1), 'epoch': 3}
    value, said = take(content)
    assert value == 1
    assert 'took model.' in said
    assert f'averaged weights, {averaged}: --config.init.part={averaged} (--part of' in said
    assert said.endswith('Ignored epoch.')
    assert take(content, averaged)[0] == 2
    del content['model']
    assert take(content) == (2, f'x.pth: took {averaged}. Ignored epoch.')


def test_a_nested_averaged_copy_is_chosen_by_any_part_of_its_name():
    content = {'ema': {'decay': 0.99, 'module': weights(2)}, 'state_dict': weights(1)}
    assert take(content)[0] == 1
    for part in ('ema', 'ema.module', 'module'):
        if part != 'ema':
            assert take(content, part)[0] == 2
    found = select(content, 'ema', 'x.pth', print)
    assert list(found) == ['module.conv1.weight', 'module.bn1.bias']


def test_a_part_of_flat_names_is_taken():
    flat = {f'module.encoder_{k}.{n}': v for k in 'qk' for n, v in weights(ord(k)).items()}
    assert take({'state_dict': flat}, 'encoder_q')[0] == ord('q')
    assert take(flat, 'module.encoder_k')[0] == ord('k')


def test_several_networks_are_refused_until_one_is_named():
    content = {'generator': weights(1), 'discriminator': weights(2)}
    with pytest.raises(
        ValueError, match=r'several networks: generator, discriminator\. .*part=gen'
    ):
        take(content)
    assert take(content, 'generator')[0] == 1  # as the message says
    with pytest.raises(ValueError, match=r"no part 'encoder'; its networks: generator, discrim"):
        take(content, 'encoder')
    twins = {'a': {'net': weights(1)}, 'b': {'net': weights(2)}}
    with pytest.raises(ValueError, match="several parts 'net'; give more of the name"):
        take(twins, 'net')
    assert take(twins, 'b.net')[0] == 2


def opaque(name):
    return type(name, (Opaque,), {})()


@pytest.mark.parametrize('wrap', [lambda m: m, lambda m: {'model': m, 'epoch': 3}, lambda m: [m]])
def test_a_whole_model_names_the_remedy(wrap):
    content = wrap(opaque('torchvision.models.resnet.ResNet'))
    with pytest.raises(ValueError, match=r'an object of torchvision\.models\.resnet\.ResNet .*st'):
        take(content)
    with pytest.raises(ValueError, match=r"torch\.save\(model\.state_dict\(\), 'weights\.pth'\)"):
        take(content)


def test_deep_nesting_ends():
    content = {}
    for _ in range(10_000):
        content = {'a': content}
    with pytest.raises(ValueError, match='holds no state_dict'):
        take(content)
