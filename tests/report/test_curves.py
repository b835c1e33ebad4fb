"""Curves of metrics.jsonl and of the published logs, and their charts."""

import base64
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from ssanet_jax.analysis.calibration import reliability
from ssanet_jax.config import base, make_plan
from ssanet_jax.report.charts import curve_charts, reliability_chart
from ssanet_jax.report.curves import published, read_curves, steps_per_epoch


def logged(steps, **values):
    return [
        {'step': step, 'split': split, 'loss': 10 / step, 'top1': 50.0, 'learning_rate': 0.1}
        | values
        for step in steps
        for split in ('train', 'eval')
    ]


def svg(uri):
    head, _, data = uri.partition(',')
    assert head == 'data:image/svg+xml;base64'
    return ElementTree.fromstring(base64.b64decode(data))


def words(uri):
    return [e.text for e in svg(uri).iter('{http://www.w3.org/2000/svg}text')]


def test_curves_are_logged_values_by_epoch():
    curves = read_curves(logged([20, 40, 60]), steps_per_epoch=20.0)
    assert curves.unit == 'epoch'
    assert curves.train['x'].tolist() == [1, 2, 3]
    np.testing.assert_allclose(curves.evaluation['loss'], [10 / 20, 10 / 40, 10 / 60])


def test_a_long_curve_is_averaged_over_intervals():
    curves = read_curves(logged(range(1, 3001)), None)
    assert curves.unit == 'step'
    assert len(curves.train['x']) == 300
    assert curves.train['x'][[0, -1]].tolist() == [10, 3000]
    expected = [np.mean([10 / s for s in range(k, k + 10)]) for k in range(1, 3001, 10)]
    np.testing.assert_allclose(curves.train['loss'], expected)


def test_nonfinite_values_are_gaps_and_their_lines_are_counted():
    lines = logged([1, 2, 3])
    lines[2] |= {'loss': math.nan, 'top1': math.nan}
    curves = read_curves(lines, None)
    assert curves.nonfinite == 1
    assert np.isnan(curves.train['loss']).tolist() == [False, True, False]


@pytest.mark.parametrize('epochs', [3.0, 7.5, 60.0])
def test_the_length_of_an_epoch_is_inferred_from_evaluations(epochs):
    config = base()
    config.batch_size, config.num_epochs = 64, epochs
    plan = make_plan(config, 1437)
    steps = [s for s in range(1, plan.num_train_steps + 1) if plan.evaluates_at(s)]
    for seen in (steps, steps[:3]):  # of a finished run and of an unfinished one
        found = steps_per_epoch(config, logged(seen))
        assert found == pytest.approx(1437 / 64, abs=1 / (len(seen) - 1))
    assert steps_per_epoch(config, logged(steps[:1])) is None
    config.eval_every_steps = 10
    assert steps_per_epoch(config, logged(steps)) is None


@pytest.mark.parametrize(
    ('model', 'dataset', 'epochs', 'best'),
    [  # best: the paper's; the logs are of single runs, slightly above or below
        ('ssa_resnet50', 'cifar10', 159, 94.93),
        ('se_resnet50', 'cifar10', 237, 94.83),
        ('resnet50', 'cifar10', 240, 94.38),
        ('se_resnet50', 'cifar100', 208, 77.13),
        ('resnet50', 'cifar100', 282, 77.26),
        ('ssa_resnet50', 'imagenet2012:5.*.*', 100, 76.61),
        ('ssa_resnet50', 'imagenet2012_336px_q90', 100, 76.61),
    ],
)
def test_published_curves_reach_the_papers_results(model, dataset, epochs, best):
    found = published(model, dataset)
    assert found.train['x'].tolist() == list(range(1, epochs + 1))
    assert found.evaluation['top1'].max() == pytest.approx(best, abs=0.3)
    assert ('learning_rate' in found.train) == ('loss' in found.evaluation) == ('cifar' in dataset)


@pytest.mark.parametrize(
    ('model', 'dataset'),
    [
        ('ssa_resnet50', 'cifar100'), ('resnet50', 'imagenet2012:5.*.*'), ('resnet20', 'cifar10'),
        ('ssa_resnet50', 'digits'), ('gssa_resnet50', 'cifar10'), ('of another version', 'cifar10'),
    ],
)  # fmt: skip
def test_other_networks_and_datasets_have_no_published_curves(model, dataset):
    assert published(model, dataset) is None


def test_a_published_curve_is_drawn_dashed_and_named():
    curves = read_curves(logged(range(500, 5000, 500)), 500.0)
    with_one = curve_charts(curves, published('ssa_resnet50', 'cifar10'), decays_in_steps=True)
    without = curve_charts(curves, None)
    assert set(with_one) == set(without) == {'loss', 'top1', 'learning_rate'}
    for name in ('loss', 'top1'):
        assert words(with_one[name])[-4:] == [
            'training', 'evaluation', 'training, published', 'evaluation, published',
        ]  # fmt: skip
        assert ElementTree.tostring(svg(with_one[name])).count(b'stroke-dasharray') >= 2
        assert words(without[name])[-2:] == ['training', 'evaluation']
    assert 'epoch' in words(with_one['loss'])


def test_charts_of_few_values():
    assert curve_charts(read_curves([], None), None) == {}
    lines = logged([1], loss=math.nan, top1=math.nan)
    assert set(curve_charts(read_curves(lines, None), None)) == {'learning_rate'}
    zero = read_curves(logged([1, 2], loss=0.0, top1=0.0, learning_rate=0.0), None)
    assert len(curve_charts(zero, None, decays_in_steps=True)) == 3


def test_charts_are_reproducible_and_follow_the_color_scheme():
    found = reliability(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    uri = reliability_chart(found, found)
    assert uri == reliability_chart(found, found)
    text = base64.b64decode(uri.partition(',')[2]).decode()
    body = text.partition('</style>')[2]
    assert '@media (prefers-color-scheme:dark)' in text
    assert '#0072b2' not in body
    assert 'var(--c0072b2)' in body
