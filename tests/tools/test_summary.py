"""What the command prints, and the published figures beside ours."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest

from ssanet_jax import create_model
from ssanet_jax.analysis.cost import layer_costs, total_cost
from ssanet_jax.attention import ATTENTION
from ssanet_jax.errors import ConfigError
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.tools import paper_tables
from ssanet_jax.tools import summary as module
from tests.helpers import ROOT, run_tool

# ml_collections reads recipes by a deprecated method.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


def summary(*arguments):
    """Runs the command in this process; what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run_tool(module, *arguments)
    return printed.getvalue()


def command(*arguments):
    """Runs it as a user does, where what the tables do not need is not installed."""
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


@pytest.fixture(scope='module')
def paper():
    """The tables of --table=paper by their first words, each a list of rows, and all notes."""
    result = command('--table=paper', '--format=json')
    assert (result.returncode, result.stderr) == (0, '')
    tables = json.loads(result.stdout)
    return {table['title'].split(':')[0]: table for table in tables}


def test_help_lists_the_flags():
    printed = command('--help').stdout
    for name in ('model', 'config', 'list', 'table', 'format', 'depth', 'stem', 'variant'):
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
    assert network['multiply-adds'] == cost.macs
    assert attention['multiply-adds'] == cost.attention_multiply_adds
    assert attention['parameters'] == 2 * 9
    assert share['multiply-adds'] == cost.attention_multiply_adds / cost.macs
    first, *others = layers['rows']
    assert [row['module'] for row in others] == [
        *('conv1', 'bn1'),
        *(f'layer{stage}_{block}' for stage in (1, 2, 3) for block in (0, 1, 2)),
        'fc',
    ]
    for name in ('parameters', 'products', 'elementwise'):
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
    """All but the classifier's product grows with the number of pixels."""
    rows = {}
    for options in (['--variant=v1'], ['--variant=v1', '--image_size=192']):
        _, total = json.loads(summary('--model=resnet50', *options, '--depth=0', '--format=json'))
        rows[len(options)] = total['rows'][0]['multiply-adds']
    assert rows[1] == 3_857_973_248
    classifier = 2048 * 1000
    assert rows[2] - classifier == (rows[1] - classifier) * 192**2 // 224**2


def test_a_recipe_in_place_of_a_name():
    printed = summary('--config=configs/cifar10_ssa50.py', '--num_classes=10', '--depth=0')
    assert 'ssa_resnet50, 10 classes, 32x32 pixels' in printed
    assert '23,520,874' in printed


def test_list_has_every_name():
    networks, attention = json.loads(summary('--list', '--format=json'))
    names = [name for row in networks['rows'] for name in row['names'].split(', ')]
    assert sorted(names) == sorted(NETWORKS)
    assert [row['attention'] for row in attention['rows']] == list(ATTENTION)
    assert 'Scales each pixel' in summary('--list')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'Choose one of --model'),
        (['--model=resnet50', '--list'], 'Choose one of --model'),
        (['--model=ssa_resnet5'], 'Nearest: .*ssa_resnet50'),
        (['--model=resnet18', '--variant=v1'], 'no bottlenecks'),
        (['--table=paper', '--depth=1'], '--depth has no effect with --table'),
        (['--config=configs/digits_ssa20.py', '--stem=cifar'], '--stem has no effect'),
        (['--config=configs/digits_ssa20.py'], 'add --num_classes'),
        (['--model=vgg11_bn', '--image_size=8'], 'too small'),
        (['--model=densenet121', '--image_size=8'], 'too small'),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as raised:
        summary(*arguments)
    assert '\n' not in str(raised.value)


def test_our_imagenet_networks_have_the_published_sizes(paper):
    rows = paper['ImageNet']['rows']
    assert [row['network'] for row in rows] == [
        'ResNet-50', 'SE-ResNet-50, ratio 16', 'SSA-ResNet-50'
    ]  # fmt: skip
    for row in rows:
        assert row['parameters, here'] / 1e6 == pytest.approx(row['parameters, paper'], abs=0.051)
        v1 = row['multiply-adds, here, v1'] / 1e9
        assert v1 == pytest.approx(row['multiply-adds, paper'], abs=0.0051)
        assert row['multiply-adds, here, v1.5'] / 1e9 - v1 == pytest.approx(0.231, abs=0.001)
    assert [row['parameters, here'] for row in rows] == [25_557_032, 28_088_024, 25_557_064]
    assert (
        round(rows[2]['multiply-adds, here, v1'] - rows[0]['multiply-adds, here, v1'], -6) == 11e6
    )


@pytest.mark.parametrize(('classes', 'ssa'), [(10, 23_520_874), (100, 23_705_284)])
def test_our_cifar_networks_are_a_third_of_what_the_paper_says(paper, classes, ssa):
    rows = paper[f'CIFAR-{classes}']['rows']
    assert rows[2]['parameters, here'] == ssa
    for row in rows:
        assert row['multiply-adds, here'] / 1e9 == pytest.approx(1.30, abs=0.0051)
        assert row['parameters, paper'] in (25.6, 28.1)


def test_what_is_said_of_mobilenets_is_true(paper):
    v1, se, ssa, v2 = paper['MobileNet on ImageNet']['rows']
    for row in (v1, se, ssa):
        found = row['multiply-adds, here'] / 1e9
        assert found == pytest.approx(row['multiply-adds, paper'], abs=0.0015)
    classifier = 1024 * 1000 + 1000
    sizes = [row['parameters, here'] for row in (v1, se, v2)]
    sizes += [size - classifier for size in sizes[:2]]
    note = paper['MobileNet on ImageNet']['notes'][0]
    for size in sizes:
        assert f'{size / 1e6:.1f} M' in note
    assert f'{v2["multiply-adds, here"] / 1e9:.2f} G' in note
    assert ssa['parameters, here'] - v1['parameters, here'] == 2 * 13


def test_our_residual_attention_networks_are_those_of_their_authors(paper):
    table = paper['Residual Attention Networks on ImageNet']
    for row in table['rows']:
        assert f'{row["parameters, here"]:,}' in table['notes'][1]
        found = row['multiply-adds, here'] / 1e9
        assert found == pytest.approx(row['multiply-adds, paper'], rel=0.025)


def test_published_accuracies_are_as_the_recipes_quote_them():
    """The SSANet paper's, which stand in the recipes too."""
    for dataset, rows in (
        ('imagenet', paper_tables.IMAGENET),
        ('cifar10', paper_tables.CIFAR10),
        ('cifar100', paper_tables.CIFAR100),
    ):
        for row in rows:
            kind = row.model.removesuffix('_resnet50')
            name = {'resnet50': 'resnet50'}.get(kind, f'{kind}50')
            assert f'{row.top1:.2f}%' in (ROOT / f'configs/{dataset}_{name}.py').read_text()
