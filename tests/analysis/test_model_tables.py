"""The tables of docs/models.md against our networks and recipes."""

import re

import pytest

from ssanet_jax import create_model
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.registry import NETWORKS
from tests.analysis.test_macs import cost
from tests.helpers import ROOT

PAGE = (ROOT / 'docs/models.md').read_text()


def rows(title):
    """The rows of a table as {column: cell}, without units."""
    lines = PAGE.split(f'**{title}')[1].split('\n\n')[1].splitlines()
    header, _, *body = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in body]


def number(cell):
    return float(re.sub(r'[,GM ]', '', cell))


def check(row, column, found, tolerance):
    assert number(row['parameters, here']) == found.parameters
    assert number(row[f'MACs, {column}']) == pytest.approx(found.macs / 1e9, abs=6e-4)
    published = number(row['MACs, paper'])
    assert found.macs / 1e9 == pytest.approx(published, abs=tolerance)


def test_our_imagenet_networks_have_the_published_sizes():
    table = rows('ImageNet')
    assert len(table) == 3
    for row, name in zip(table, ('resnet50', 'se_resnet50', 'ssa_resnet50'), strict=True):
        found = cost(name, 'v1')
        check(row, 'here, v1', found, 0.0051)
        assert found.parameters / 1e6 == pytest.approx(number(row['parameters, paper']), abs=0.051)


def test_our_mobilenets_have_the_published_macs():
    table = rows('MobileNet on ImageNet')[:3]
    for row, name in zip(table, ('', 'se_', 'ssa_'), strict=True):
        check(row, 'here', cost(f'{name}mobilenet_v1', None), 0.0015)


def test_published_accuracies_agree_with_the_recipes():
    for title, dataset in (
        ('ImageNet', 'imagenet'), ('CIFAR-10:', 'cifar10'), ('CIFAR-100:', 'cifar100')
    ):  # fmt: skip
        for row, kind in zip(rows(title), ('resnet50', 'se50', 'ssa50'), strict=True):
            recipe = (ROOT / f'configs/{dataset}_{kind}.py').read_text()
            assert f'{number(row["top-1, %"]):.2f}%' in recipe


def test_the_sizes_of_cifar_networks_are_correct():
    found = model_cost(create_model('ssa_resnet50', num_classes=10, stem='cifar'), 32)
    assert f'| {found.parameters:,} | 3.87 G | {found.macs / 1e9:.3f} G |' in PAGE


@pytest.mark.parametrize('name', ['resnet20', 'densenet121', 'mobilenet_v2'])
def test_the_table_of_networks_has_their_sizes(name):
    model = create_model(name, num_classes=10)
    found = model_cost(model, 32) if model.stem == 'cifar' else cost(name, None)
    (row,) = re.findall(rf'^\| `{name}` \| [A-Z].*$', PAGE, re.MULTILINE)
    assert f'| {found.parameters:,} | {found.macs / 1e9:.3f} G |' in row


def test_the_tables_have_every_network_and_every_attention():
    for name in (*NETWORKS, *ATTENTION):
        assert f'| `{name}` |' in PAGE, name
