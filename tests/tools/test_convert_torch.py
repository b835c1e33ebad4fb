import subprocess
import sys

import jax
import numpy as np
import pytest

from ssanet_jax import create_model, weights
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import convert_torch
from ssanet_jax.weights import convert
from tests.helpers import ROOT, assert_trees_equal, run_tool
from tests.weights.bits import bits, random_bits


def run(**options):
    run_tool(convert_torch, *(f'--{name}={value}' for name, value in options.items()))


@pytest.fixture
def resnet(tmp_path):
    """The variables of a ResNet-20, and their file under the torchvision naming."""
    model = create_model('resnet20', num_classes=7)
    rng = np.random.default_rng(0)
    shapes = convert.variable_shapes(model)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    path = tmp_path / 'resnet20.safetensors'
    weights.save(path, weights.to_arrays(variables, model))
    return variables, str(path)


def test_ssa_is_inserted(resnet, tmp_path, capsys):
    variables, path = resnet
    out = str(tmp_path / 'ssa.safetensors')
    run(model='ssa_resnet20', weights=path, insert=True, out=out)
    assert '269,545 parameters' in capsys.readouterr().out.replace('\n', ' ')
    model = create_model('ssa_resnet20', num_classes=7)
    found = weights.from_torch(weights.load(out), model)
    assert found['params']['layer1_0'].pop('ssa')['bn'] == {'bias': 0, 'scale': 0}
    for name, layer in variables['params'].items():
        found['params'][name].pop('ssa', None)
        assert_trees_equal(found['params'][name], layer)


def test_names_are_converted(resnet, tmp_path):
    variables, path = resnet
    out = str(tmp_path / 'other.safetensors')
    run(model='resnet20', weights=path, out=out, to='ssanet_cifar')
    assert {'linear.bias', 'layer1.0.conv1.weight'} <= weights.load(out).keys()
    model = create_model('resnet20', num_classes=7)
    assert_trees_equal(weights.from_torch(weights.load(out), model), variables)


def test_a_recipe_sets_options_of_the_network(tmp_path):
    """CBAM as in timm, without biases."""
    options = {'attention_options': {'mlp_bias': False}}
    model = create_model('cbam_resnet20', num_classes=3, **options)
    variables = random_bits(convert.variable_shapes(model, 8))
    path, out = (str(tmp_path / name) for name in ('in.safetensors', 'out.safetensors'))
    weights.save(path, weights.to_arrays(variables, model, naming='timm'))
    command = [sys.executable, '-m', 'ssanet_jax.tools.convert_torch', f'--weights={path}']
    command += ['--config=configs/digits_ssa20.py', '--config.model.name=cbam_resnet20']
    command += ['--config.model.cbam.mlp_bias=False', '--to=timm', f'--out={out}']
    subprocess.run(command, cwd=ROOT, check=True)
    assert_trees_equal(bits(weights.from_torch(weights.load(out), model)), bits(variables))


def test_a_checkpoint_with_prefixes_is_read_and_a_part_is_chosen(resnet, tmp_path, capsys):
    variables, path = resnet
    raw = weights.load(path)
    both = {f'module._orig_mod.{name}': value for name, value in raw.items()}
    both |= {f'model_ema.{name}': value + (value.ndim > 0) for name, value in raw.items()}
    file, out = (str(tmp_path / name) for name in ('both.safetensors', 'out.safetensors'))
    weights.save(file, both)
    run(model='resnet20', weights=file, out=out)
    said = ' '.join(capsys.readouterr().out.split())
    assert 'Stripped the prefix module._orig_mod. of the weights.' in said
    model = create_model('resnet20', num_classes=7)
    assert_trees_equal(weights.from_torch(weights.load(out), model), variables)
    run(model='resnet20', weights=file, out=out, part='model_ema')
    np.testing.assert_array_equal(weights.load(out)['fc.bias'], raw['fc.bias'] + 1)


def test_the_classifier_is_left_out_for_no_classes(resnet, tmp_path):
    _, path = resnet
    out = str(tmp_path / 'features.safetensors')
    run(model='resnet20', weights=path, out=out, num_classes=0)
    assert not [name for name in weights.load(out) if name.startswith('fc.')]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'Expected --weights with either --model or --config'),
        ({'model': 'ssa_resnet20'}, r'Missing: layer1\.0\.ssa\.bn\.bias.*--insert'),
        ({'model': 'resnet32'}, r'Missing: layer1\.3\.bn1\.bias'),
        ({'model': 'vgg16_bn'}, 'Missing: '),
        ({'model': 'densenet121'}, r'Unexpected: bn1\.bias, '),
        ({'model': 'resnet20', 'num_classes': 10}, r'fc\.bias has shape \(7,\).* needs \(10,\)'),
        ({'model': 'resnet20', 'to': 'keras'}, "choose one of 'torchvision', 'timm'"),
        ({'model': 'resnet20', 'out': 'weights.onnx'}, r'must end in \.safetensors'),
        ({'model': 'resnet20', 'out': '/nowhere/a.safetensors'}, 'in a folder that exists'),
        ({'model': 'resnet20', 'gate_scale': 1.0}, 'no effect without --insert'),
        ({'model': 'se_resnet20', 'insert': True}, '--insert needs --model=ssa_'),
        ({'model': 'resnet20', 'checkpoint': 'latest'}, '--checkpoint has no effect with --model'),
        ({'model': 'resnet99'}, "No model is called 'resnet99'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(resnet, tmp_path, options, message):
    _, path = resnet
    out = tmp_path / 'out.safetensors'
    given = {'out': str(out), **({'weights': path} if options else {}), **options}
    with pytest.raises(ConfigError, match=message) as error:
        run(**given)
    assert '\n' not in str(error.value)
    assert not out.exists()
