"""Torch files as torch writes them; needs torch, which the tests do not install."""

import argparse
import collections
import datetime
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ssanet_jax import create_model, weights
from ssanet_jax.weights import convert

torch = pytest.importorskip('torch')

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of torch's own


class Attributes(dict):
    """As EasyDict, a mapping that is also an object."""

    def __init__(self, **values):
        super().__init__(values)
        self.__dict__.update(values)


class Names(list):
    pass


class Attack:
    """Calls a function when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


BESIDE = {
    'args': argparse.Namespace(lr=0.1, out=Path('/runs')),
    'best_acc': np.float64(71.5),
    'array': np.ones(3),
    'hyper_parameters': Attributes(lr=0.1, inner=Attributes(a=1)),
    'defaults': collections.defaultdict(list, {1: [2]}),
    'queue': collections.deque([1]),
    'names': Names(['a']),
    'time': datetime.datetime(2026, 1, 1),
    'kind': Attributes,
    'activation': torch.relu,
    'random': torch.get_rng_state(),
}


def state_dict():
    return {'conv1.weight': torch.arange(6.0).reshape(2, 3, 1, 1)}


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def saved(request, tmp_path):
    """A function that saves its argument in either format of torch."""

    def save(content, name='x.ckpt'):
        path = tmp_path / name
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return path

    return save


@pytest.mark.parametrize('name', ['a.pth', 'a.pt', 'a.bin', 'a.ckpt', 'a.pth.tar', 'a.th', 'a'])
def test_the_name_of_the_file_does_not_matter(saved, name):
    found = weights.load(saved(state_dict(), name))
    assert torch.equal(found['conv1.weight'], state_dict()['conv1.weight'])


@pytest.mark.parametrize('key', BESIDE)
def test_other_objects_are_ignored_and_named(saved, key):
    said = []
    found = weights.load(saved({'state_dict': state_dict(), key: BESIDE[key]}), say=said.append)
    assert list(found) == ['conv1.weight']
    (sentence,) = said
    assert sentence.endswith(f'x.ckpt: took state_dict. Ignored {key}.')


def test_all_of_them_at_once(saved):
    assert list(weights.load(saved({**BESIDE, 'model': state_dict()}))) == ['conv1.weight']


def test_nothing_is_executed(saved, tmp_path):
    path = tmp_path / 'executed'
    builtin = Attack(eval, f'open({str(path)!r}, "w").close()')
    system = Attack(os.system, f'touch {path}')
    for attack in (builtin, system):
        pickle.loads(pickle.dumps(attack))
        path.unlink()
    found = weights.load(saved({'state_dict': state_dict(), 'x': builtin}))
    assert list(found) == ['conv1.weight']
    with pytest.raises(ValueError, match=r'(posix|nt)\.system whose module \w+ is blocked'):
        weights.load(saved({'state_dict': state_dict(), 'x': system}))
    assert not path.exists()


def test_a_whole_model_names_the_remedy(saved):
    with pytest.raises(ValueError, match=r'torch\.save\(model\.state_dict\(\)'):
        weights.load(saved(torch.nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r'torch\.save\(model\.state_dict\(\)'):
        weights.load(saved({'model': torch.nn.Linear(2, 2), 'epoch': 3}))


def test_a_torchscript_program_names_a_remedy_that_works(tmp_path):
    path = tmp_path / 'script.pt'
    torch.jit.script(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1))).save(path)
    with pytest.raises(
        ValueError, match=r'TorchScript program: .*torch\.jit\.load\(FILE\)\.state_d'
    ):
        weights.load(path)
    torch.save(torch.jit.load(path).state_dict(), tmp_path / 'weights.pth')
    assert list(weights.load(tmp_path / 'weights.pth')) == ['0.weight', '0.bias']


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64'])
def test_other_precisions_are_converted(saved, dtype):
    values = torch.tensor([[[[0.5]], [[-1.5]], [[2.0]]]] * 2).to(getattr(torch, dtype))
    found = convert.to_numpy(weights.load(saved({'conv1.weight': values}))['conv1.weight'])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0, :, 0, 0], [0.5, -1.5, 2.0])


def small():
    return create_model('resnet18', num_classes=5, stem='cifar', stage_sizes=(1, 1), width=8)


def tensors():
    shapes = convert.variable_shapes(small())
    rng = np.random.default_rng(0)
    variables = {
        group: {
            name: _draw(tree, rng) for name, tree in shapes[group].items()
        }
        for group in shapes
    }  # fmt: skip
    return weights.to_torch(variables, small()), variables


def _draw(tree, rng):
    if hasattr(tree, 'shape'):
        return rng.normal(size=tree.shape).astype(np.float32)
    return {name: _draw(inner, rng) for name, inner in tree.items()}


def test_what_wrappers_of_torch_save_is_read(saved):
    """DataParallel, torch.compile and AveragedModel around a module with these weights."""
    state, variables = tensors()
    module = torch.nn.Module()
    for name, value in state.items():
        inner = module
        *path, leaf = name.split('.')
        for part in path:
            inner.add_module(part, getattr(inner, part, torch.nn.Module()))
            inner = getattr(inner, part)
        inner.register_buffer(leaf, value)
    wrapped = [
        torch.nn.DataParallel(module),
        torch.compile(module),
        torch.nn.DataParallel(torch.compile(module)),
        torch.optim.swa_utils.AveragedModel(module),
    ]
    for number, wrapper in enumerate(wrapped):
        said = []
        path = saved({'model_state_dict': wrapper.state_dict()}, f'{number}.pth')
        found = weights.from_torch(weights.load(path), small(), say=said.append)
        for name, value in found['params']['layer1_0'].items():
            for leaf in value:
                np.testing.assert_array_equal(
                    value[leaf], variables['params']['layer1_0'][name][leaf]
                )
        assert said[0].startswith('Stripped the prefix ')
