"""The paper's tables in docs/models.md against our networks and recipes."""

import re

import pytest

from ssanet_jax import create_model
from ssanet_jax.analysis.macs import model_cost
from tests.helpers import ROOT


def rows(title):
    """The rows of a table as {column: cell}, without units."""
    page = (ROOT / 'docs/models.md').read_text()
    lines = page.split(f'**{title}')[1].split('\n\n')[1].splitlines()
    header, _, *body = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in body]


def number(cell):
    return float(re.sub(r'[,GM ]', '', cell))


def check(row, column, cost, tolerance):
    assert number(row['parameters, here']) == cost.parameters
    assert number(row[f'MACs, {column}']) == pytest.approx(cost.macs / 1e9, abs=6e-4)
    published = number(row['MACs, paper'])
    assert cost.macs / 1e9 == pytest.approx(published, abs=tolerance)


def test_our_imagenet_networks_have_the_published_sizes():
    table = rows('ImageNet')
    assert len(table) == 3
    for row, name in zip(table, ('resnet50', 'se_resnet50', 'ssa_resnet50'), strict=True):
        cost = model_cost(create_model(name, num_classes=1000, variant='v1'), 224)
        check(row, 'here, v1', cost, 0.0051)
        assert cost.parameters / 1e6 == pytest.approx(number(row['parameters, paper']), abs=0.051)


def test_our_mobilenets_have_the_published_macs():
    table = rows('MobileNet on ImageNet')[:3]
    for row, name in zip(table, ('', 'se_', 'ssa_'), strict=True):
        cost = model_cost(create_model(f'{name}mobilenet_v1', num_classes=1000), 224)
        check(row, 'here', cost, 0.0015)


def test_published_accuracies_agree_with_the_recipes():
    for title, dataset in (
        ('ImageNet', 'imagenet'), ('CIFAR-10:', 'cifar10'), ('CIFAR-100:', 'cifar100')
    ):  # fmt: skip
        for row, kind in zip(rows(title), ('resnet50', 'se50', 'ssa50'), strict=True):
            recipe = (ROOT / f'configs/{dataset}_{kind}.py').read_text()
            assert f'{number(row["top-1, %"]):.2f}%' in recipe
