"""The output of tools.summary."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest

from ssanet_jax import create_model
from ssanet_jax.analysis.macs import layer_costs, total_cost
from ssanet_jax.attention import ATTENTION
from ssanet_jax.errors import ConfigError
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.tools import summary as module
from tests.helpers import ROOT, run_tool

# ml_collections reads recipes by a deprecated method.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


def summary(*arguments):
    """Runs the command in this process; returns its output."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run_tool(module, *arguments)
    return printed.getvalue()


def command(*arguments):
    """Runs the command as a user does, without the packages that it does not need."""
    hidden = ['tensorflow', 'tensorflow_datasets', 'clu', 'matplotlib', 'cv2', 'sklearn', 'PIL']
    code = (
        f'import runpy, sys\nfor name in {hidden}: sys.modules[name] = None\n'
        "runpy.run_module('ssanet_jax.tools.summary', run_name='__main__', alter_sys=True)"
    )
    return subprocess.run(
        [sys.executable, '-c', code, *arguments],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': ''},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help_lists_the_flags():
    printed = command('--help').stdout
    for name in ('model', 'config', 'list', 'format', 'depth', 'stem', 'variant'):
        assert f'--{name}:' in printed.replace('[no]', '')
    assert '--model=ssa_resnet50' in printed


def test_the_totals_are_those_of_the_layers():
    layers, total = json.loads(
        summary('--model=ssa_resnet20', '--num_classes=10', '--depth=1', '--format=json')
    )
    assert layers['title'] == 'ssa_resnet20, 10 classes, 32x32 pixels'
    counted = layer_costs(create_model('ssa_resnet20', num_classes=10), 32)
    cost = total_cost(counted)
    network, attention, share = total['rows']
    assert network['parameters'] == cost.parameters == 269_740
    assert network['MACs'] == cost.macs
    attention_macs = cost.attention_matmul_macs + cost.attention_elementwise
    assert attention['MACs'] == attention_macs
    assert attention['parameters'] == 2 * 9
    assert share['MACs'] == attention_macs / cost.macs
    first, *others = layers['rows']
    assert [row['module'] for row in others] == [
        *('conv1', 'bn1'),
        *(f'layer{stage}_{block}' for stage in (1, 2, 3) for block in (0, 1, 2)),
        'fc',
    ]
    for name in ('parameters', 'matmul MACs', 'elementwise'):
        assert first[name] == network[name] == sum(row[name] for row in others)
    assert others[2]['output'] == '32x32x16'
    assert others[-1]['output'] == '10'


@pytest.mark.parametrize(('depth', 'lines'), [(0, 1), (1, 13), (2, 13 + 9 * 5), (9, 13 + 9 * 6)])
def test_depth_folds_submodules(depth, lines):
    table, _ = json.loads(
        summary('--model=ssa_resnet20', '--num_classes=10', f'--depth={depth}', '--format=json')
    )
    assert len(table['rows']) == lines


def test_markdown_has_a_cell_for_every_column():
    printed = summary('--model=ssa_resnet20', '--num_classes=10', '--format=markdown')
    assert '| layer1_0/ssa | SSABlock | 32x32x16 | 2 | 0 | 34,832 |' in printed.splitlines()
    assert '**ssa_resnet20, 10 classes, 32x32 pixels**' in printed
    blocks = [block for block in printed.split('\n\n') if block.startswith('|')]
    for block in blocks:
        assert len({line.count('|') for line in block.splitlines()}) == 1
    assert len(blocks) == 2


def test_a_table_for_the_terminal():
    printed = summary('--model=resnet18', '--stem=cifar', '--num_classes=10', '--depth=1')
    assert 'resnet18, 10 classes, 32x32 pixels' in printed
    (line,) = (line for line in printed.splitlines() if 'layer4_1' in line)
    assert '4x4x512' in line
    assert '4,720,640' in line  # 2 x 3 x 3 x 512 x 512 of convolutions and 2 x 2 x 512


def test_variant_and_image_size_have_an_effect():
    """All MACs except those of the classifier grow with the number of pixels."""
    rows = {}
    for options in (['--variant=v1'], ['--variant=v1', '--image_size=192']):
        _, total = json.loads(summary('--model=resnet50', *options, '--depth=0', '--format=json'))
        rows[len(options)] = total['rows'][0]['MACs']
    assert rows[1] == 3_857_973_248
    classifier = 2048 * 1000
    assert rows[2] - classifier == (rows[1] - classifier) * 192**2 // 224**2


def test_a_recipe_instead_of_a_name():
    printed = summary('--config=configs/cifar10_ssa50.py', '--num_classes=10', '--depth=0')
    assert 'ssa_resnet50, 10 classes, 32x32 pixels' in printed
    assert '23,520,874' in printed


def test_list_has_every_name():
    networks, attention = json.loads(summary('--list', '--format=json'))
    names = [name for row in networks['rows'] for name in row['names'].split(', ')]
    assert sorted(names) == sorted(NETWORKS)
    assert [row['attention'] for row in attention['rows']] == list(ATTENTION)
    assert 'Gates each pixel' in summary('--list')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'Choose one of --model'),
        (['--model=resnet50', '--list'], 'Choose one of --model'),
        (['--model=ssa_resnet5'], 'Nearest: .*ssa_resnet50'),
        (['--model=resnet18', '--variant=v1'], 'no bottlenecks'),
        (['--list', '--depth=1'], '--depth has no effect with --list'),
        (['--config=configs/digits_ssa20.py', '--stem=cifar'], '--stem has no effect'),
        (['--config=configs/digits_ssa20.py'], 'add --num_classes'),
        (['--model=vgg11_bn', '--image_size=8'], 'too small'),
        (['--model=densenet121', '--image_size=8'], 'too small'),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as raised:
        summary(*arguments)
    assert '\n' not in str(raised.value)
