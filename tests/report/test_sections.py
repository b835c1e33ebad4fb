"""Sections and tables of a report, against their sources."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.stats

import ssanet_jax
from ssanet_jax import create_model
from ssanet_jax.analysis.macs import layer_costs, model_cost
from ssanet_jax.config import base, cifar
from ssanet_jax.report.header import make_header
from ssanet_jax.report.sections import calibration_section, gates_section
from ssanet_jax.report.tables import config_tables, cost_table, starts_table


@pytest.mark.parametrize('name', ['ssa_resnet20', 'resnet20'])
def test_the_rows_of_the_cost_table_add_up(name):
    model = create_model(name, num_classes=10, stem='cifar')
    rows = cost_table(layer_costs(model, 32), 32).rows
    *parts, whole, attention = rows
    cost = model_cost(model, 32)
    assert whole[2:] == (cost.parameters, cost.macs)
    assert tuple(np.sum([row[2:] for row in parts], axis=0)) == whole[2:]
    assert [row[:2] for row in parts[:3]] == [
        ('conv1', '32x32x16'), ('bn1', '32x32x16'), ('layer1_0', '32x32x16'),
    ]  # fmt: skip
    # Three blocks per stage: squeeze times pixels, gate times pixels, a BatchNorm of two, a mean.
    stages = ((32, 16), (16, 32), (8, 64))
    of_ssa = sum(3 * (2 * size**2 * c + 2 * size**2 + c) for size, c in stages)
    assert attention[2:] == ((9 * 2, of_ssa) if name == 'ssa_resnet20' else (0, 0))


def test_gate_statistics_equal_those_of_the_feature_maps(digits_run, evaluated):
    trained = ssanet_jax.load(str(digits_run))
    found = gates_section(trained, evaluated)
    assert found.images == 120
    images = trained.preprocess(evaluated.sample.image)
    maps = ssanet_jax.feature_maps(trained.model, trained.variables, images, ['*/ssa/gate'])
    assert [f'{row[0]}/gate' for row in found.table.rows] == list(maps)
    for row, gate in zip(found.table.rows, jax.device_get(maps).values(), strict=True):
        assert row[1] == f'{gate.shape[1]} x {gate.shape[2]}'
        within = np.mean([image.std() for image in gate])
        between = np.std([image.mean() for image in gate])
        expected = [gate.mean(), gate.std(), within, between]
        np.testing.assert_allclose(row[2:6], expected, rtol=1e-3, atol=1e-4)
        assert row[6] == pytest.approx(np.mean(gate < 0.05), abs=1e-4)
        assert row[7] == pytest.approx(np.mean(gate > 0.95), abs=1e-4)
        pixels = np.asarray(gate, np.float64).reshape(len(gate), -1)
        entropies = [scipy.stats.entropy(p) / np.log(len(p)) for p in pixels]
        assert row[8] == pytest.approx(np.mean(entropies), rel=1e-4)


def test_calibration_explains_extreme_temperatures():
    label = np.arange(40) % 2
    right = np.eye(2, dtype=np.float32)[label]
    assert 'every image is correct' in calibration_section(right, label).extreme
    assert 'guessing would be better' in calibration_section(-right, label).extreme
    noise = np.random.default_rng(0).normal(size=right.shape).astype(np.float32)
    found = calibration_section(right + noise, label)
    assert found.extreme == ''
    share = 100 * np.mean((right + noise).argmax(axis=1) == label)
    assert [row[3] for row in found.table.rows] == [pytest.approx(share)] * 2
    assert calibration_section(right[:1], label[:1]) is None


@pytest.mark.parametrize(
    ('now', 'logged', 'same'),
    [(2.0, 2.0005, True), (2.0, 2.1, False), (np.nan, np.nan, True), (np.nan, 2.0, False),
     (2.0, np.nan, False)],
)  # fmt: skip
def test_the_header_says_whether_the_run_logged_the_same(now, logged, same):
    values = {'top1': 10.0, 'top5': 50.0, 'loss': now, 'num_examples': 20}
    line = {**values, 'step': 7, 'split': 'eval', 'loss': logged}
    trained = SimpleNamespace(step=7, classes=tuple('0123456789'))
    evaluation = SimpleNamespace(means=lambda: values)
    found = make_header(base(), trained, evaluation, [line], [], [], None)
    assert ('logged the same' in found.source) == same
    assert (f'a loss of {logged:.4f} on 20 images' in found.source) != same


def test_the_config_has_changed_and_all_fields():
    differ, everything = config_tables(cifar('cifar10'))
    assert ('batch_size', '100', '128') in differ.rows
    assert ('model.stem', 'cifar', 'unset') in differ.rows
    assert 'seed' not in {row[0] for row in differ.rows}
    assert ('seed', '0') in everything.rows
    assert config_tables(base())[0].rows == []


def test_only_the_last_starts_are_listed():
    starts = [{'step': k, 'versions': {'jax': '0.10.2'}} for k in range(70)]
    starts[-1]['versions']['flax'] = '0.12.8'
    table = starts_table(starts)
    assert [row[2] for row in table.rows] == list(range(20, 70))
    assert [column.name for column in table.columns][-2:] == ['jax', 'flax']
    assert table.rows[0][-2:] == ('0.10.2', None)
    assert table.notes == ['The first 20 starts are omitted.']
    assert starts_table(starts[:2]).notes == []
