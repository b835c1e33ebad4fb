import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from ssanet_jax.errors import ConfigError
from ssanet_jax.study.analysis import analyze, write_results
from ssanet_jax.study.folder import RunRecord, StudyFolder

pytestmark = pytest.mark.usefixtures('frozen_heap')

IMAGES, CLASSES, SEEDS = 60, 4, (2, 0, 1, 5, 9, 7, 30)
RUNS = {'ssa': (0, 1, 2, 5, 7, 9), 'none': (0, 1, 2, 5, 7, 30), 'se': (), 'eca': (9,)}
CORRUPTIONS = ['blur', 'noise']
SKILL = {'none': 0.8, 'ssa': 1.4, 'eca': 1.0}


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """A folder, and its raw data as lists of Python numbers."""
    folder = StudyFolder(tmp_path_factory.mktemp('study'))
    folder.description.write_text(json.dumps(describe()))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, IMAGES)
    np.save(folder.labels, labels.astype(np.int32))
    records = {}
    for variant, seeds in RUNS.items():
        for seed in seeds:
            record = make_record(rng, labels, SKILL[variant])
            folder.write_run(variant, seed, record)
            records[variant, seed] = record
    return SimpleNamespace(folder=folder, labels=labels.tolist(), records=records)


@pytest.fixture(scope='module')
def analysis(study, frozen_heap):
    return analyze(study.folder)


def describe():
    return {
        'name': 'hand_made',
        'question': 'Does it help?',
        'baseline': 'none',
        'seeds': SEEDS,
        'variants': {
            name: {'parameters': 10 + i, 'macs': 100 + i, 'memory_bytes': i or None}
            for i, name in enumerate(RUNS)
        },
        'corruptions': CORRUPTIONS,
        'smallest_effect': 0.5,
    }


def make_record(rng, labels, skill):
    logits = rng.normal(size=(IMAGES, CLASSES))
    logits[np.arange(IMAGES), labels] += skill
    count = rng.integers(3, 5)  # runs log at different steps
    return RunRecord(
        log_probs=scipy.special.log_softmax(logits, axis=1).astype(np.float16),
        steps=np.arange(10, 10 * count + 1, 10, dtype=np.int32),
        train_loss=rng.random(count).astype(np.float32),
        predictions=rng.integers(0, CLASSES, (len(CORRUPTIONS), IMAGES)).astype(np.uint16),
        images_per_second=float(rng.integers(100, 200)),
        seconds=float(rng.integers(10, 20)),
    )


def correct(study, variant, seed):
    rows = study.records[variant, seed].log_probs.tolist()
    return [row.index(max(row)) == label for row, label in zip(rows, study.labels, strict=True)]


def corrupted(study, variant, seed, kind):
    classes = study.records[variant, seed].predictions[kind].tolist()
    return [a == b for a, b in zip(classes, study.labels, strict=True)]


def nll(study, variant, seed):
    rows = study.records[variant, seed].log_probs.tolist()
    return sum(-row[label] for row, label in zip(rows, study.labels, strict=True)) / IMAGES


def ece(study, variant, seed):
    gaps = [0.0] * 15
    rows = study.records[variant, seed].log_probs.tolist()
    for row, hit in zip(rows, correct(study, variant, seed), strict=True):
        confidence = math.exp(max(row))
        gaps[math.ceil(confidence * 15) - 1] += (confidence - hit) / IMAGES
    return sum(map(abs, gaps))


def assert_estimates(estimate, values):
    values = np.array(values)
    np.testing.assert_allclose(estimate.values, values, rtol=1e-9, atol=1e-12)
    assert estimate.mean == pytest.approx(values.mean())
    if len(values) == 1:
        assert (estimate.sd, estimate.low, estimate.high) == (None, None, None)
        return
    assert estimate.sd == pytest.approx(values.std(ddof=1))
    interval = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=30_000, rng=np.random.default_rng(7)
    ).confidence_interval
    near = 0.1 * estimate.sd  # two bootstraps
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=near)


def test_variants_have_the_means_of_their_runs(study, analysis):
    assert [variant.name for variant in analysis.variants] == ['ssa', 'none', 'eca']
    for result in analysis.variants:
        runs = [(study, result.name, seed) for seed in RUNS[result.name]]
        assert result.seeds == RUNS[result.name]
        assert_estimates(result.accuracy, [100 * sum(correct(*run)) / IMAGES for run in runs])
        assert_estimates(result.nll, [nll(*run) for run in runs])
        assert_estimates(result.ece, [ece(*run) for run in runs])
        by_kind = [[100 * sum(corrupted(*run, k)) / IMAGES for run in runs] for k in (0, 1)]
        assert list(result.corruptions) == CORRUPTIONS
        assert_estimates(result.corruptions['blur'], by_kind[0])
        assert_estimates(result.corruptions['noise'], by_kind[1])
        assert_estimates(result.corrupted, np.mean(by_kind, axis=0))
        records = [study.records[result.name, seed] for seed in result.seeds]
        assert result.seconds == pytest.approx(np.mean([r.seconds for r in records]))
        assert result.images_per_second == np.median([r.images_per_second for r in records])
    costs = [(v.parameters, v.macs, v.memory_bytes) for v in analysis.variants]
    assert costs == [(10, 100, None), (11, 101, 1), (13, 103, 3)]


def test_learning_curves_are_means_at_the_steps_that_all_runs_logged(study, analysis):
    for result in analysis.variants:
        losses = [study.records[result.name, seed].train_loss.tolist() for seed in result.seeds]
        shortest = min(map(len, losses))
        assert result.train_loss.steps == tuple(range(10, 10 * shortest + 1, 10))
        for t in range(shortest):
            values = [loss[t] for loss in losses]
            sd = np.std(values, ddof=1) if len(values) > 1 else 0
            assert result.train_loss.mean[t] == pytest.approx(np.mean(values))
            assert result.train_loss.sd[t] == pytest.approx(sd)


def test_comparisons_have_the_seeds_that_both_have(study, analysis):
    (comparison,) = analysis.comparisons  # eca and none share no seed
    seeds = (0, 1, 2, 5, 7)
    assert (comparison.variant, comparison.seeds) == ('ssa', seeds)
    a = [correct(study, 'ssa', seed) for seed in seeds]
    b = [correct(study, 'none', seed) for seed in seeds]
    gains = [100 * (sum(x) - sum(y)) / IMAGES for x, y in zip(a, b, strict=True)]
    test = comparison.accuracy
    assert_estimates(test.difference, gains)
    assert test.better.wins == sum(gain > 0 for gain in gains)
    assert test.better.value == np.mean([(gain > 0) + (gain == 0) / 2 for gain in gains])
    p = scipy.stats.wilcoxon(gains, zero_method='pratt').pvalue
    assert test.wilcoxon_p == pytest.approx(p)
    assert test.holm_p == pytest.approx(p)  # the only comparison
    assert test.verdict == 'undecided'  # as any 5 pairs with such differences
    for metric, values in ((nll, comparison.nll), (ece, comparison.ece)):
        assert_estimates(
            values, [metric(study, 'ssa', seed) - metric(study, 'none', seed) for seed in seeds]
        )
    flat = [pair for x, y in zip(a, b, strict=True) for pair in zip(x, y, strict=True)]
    assert comparison.mcnemar.only_variant == flat.count((True, False))
    assert comparison.mcnemar.only_baseline == flat.count((False, True))
    by_kind = [
        [
            100
            * (sum(corrupted(study, 'ssa', s, k)) - sum(corrupted(study, 'none', s, k)))
            / IMAGES
            for s in seeds
        ]
        for k in (0, 1)
    ]
    assert_estimates(comparison.corruptions['blur'], by_kind[0])
    assert_estimates(comparison.corruptions['noise'], by_kind[1])
    assert_estimates(comparison.corrupted.difference, np.mean(by_kind, axis=0))
    assert 'difference in accuracy on corrupted test images is' in comparison.corrupted.sentence


def test_an_incomplete_study_says_what_is_missing(study, analysis):
    assert (analysis.runs, analysis.missing) == (13, 4 * 7 - 13)
    assert analysis.missing_pairs == {'ssa': 2, 'se': 7, 'eca': 7}
    p = np.mean([correct(study, 'none', seed) for seed in RUNS['none']])
    floor = 100 * math.sqrt(p * (1 - p) / IMAGES)
    assert analysis.binomial_standard_error == pytest.approx(floor)
    gain = analysis.comparisons[0].accuracy.difference.mean
    assert analysis.summary == (
        f'Undecided: ssa ({gain:+.2f}). In parentheses, the mean difference from '
        'none in points of accuracy, over 5 pairs. The sampling of 60 test images alone gives the '
        f'accuracy of none a standard deviation of {floor:.2f} points. 15 of 28 runs are missing.'
    )


def test_results_json_is_the_analysis(study, analysis):
    assert write_results(study.folder) == analysis
    saved = json.loads(study.folder.results.read_text(), parse_constant=pytest.fail)
    assert saved == json.loads(json.dumps(analysis.to_dict()))
    assert saved['comparisons'][0]['accuracy']['verdict'] == 'undecided'
    assert not list(study.folder.path.glob('*.partial'))


def test_equal_differences_of_counts_are_ties(tmp_path):
    none, ssa, images = [270, 272, 270, 272], [272, 274, 272, 274], 300
    differences = {100 * x / images - 100 * y / images for x, y in zip(ssa, none, strict=True)}
    assert len(differences) == 2  # shares round differently
    (comparison,) = analyze(make_counts(tmp_path, none=none, ssa=ssa, images=images)).comparisons
    assert set(comparison.accuracy.difference.values) == {100 * 2 / images}


def make_counts(path, images, **variants):
    """A study without corruptions whose runs classify these numbers of images correctly."""
    folder = StudyFolder(path)
    description = describe() | {'corruptions': []}
    description['seeds'] = list(range(max(map(len, variants.values())) or 1))
    description['variants'] = dict.fromkeys(variants, description['variants']['none'])
    folder.description.write_text(json.dumps(description))
    np.save(folder.labels, np.zeros(images, np.int32))
    for variant, counts in variants.items():
        for seed, count in enumerate(counts):
            shares = np.where(np.arange(images) < count, 0.75, 0.25)
            record = RunRecord(
                log_probs=np.log(np.stack([shares, 1 - shares], axis=1)).astype(np.float16),
                steps=np.array([1, 2], np.int32),
                train_loss=np.array([1.0, np.nan], np.float32),
                predictions=np.empty((0, images), np.uint16),
                images_per_second=1.0,
                seconds=1.0,
            )
            folder.write_run(variant, seed, record)
    return folder


def test_a_study_without_corruptions_and_with_a_loss_that_is_not_finite(tmp_path):
    analysis = write_results(make_counts(tmp_path, images=50, none=[40] * 4, ssa=[40] * 4))
    assert analysis.missing == 0
    assert analysis.variants[0].corrupted is None
    assert analysis.comparisons[0].corrupted is None
    assert analysis.comparisons[0].accuracy.verdict == 'undecided'  # 4 equal pairs are too few
    assert analysis.variants[0].train_loss.steps == (1,)


def test_the_summary_lists_the_variants_of_each_verdict(tmp_path):
    none = [700, 701, 702, 703, 704, 705, 706, 707, 708, 709]
    gains = {
        'much': [15, 16, 17, 18, 19, 20, 21, 22, 23, 24],
        'little': [1, 2, 3, 1, 2, 3, 1, 2, 3, 1],
        'worse': [-15, -16, -17, -18, -19, -20, -21, -22, -23, -24],
        'same': [0, 1, -1, 0, 1, -1, 0, 1, -1, 0],
        'noisy': [20, -20, 19, -18, 17, -16, 15, -14, 13, -12],
        'alike': [18, 16, 17, 15, 19],
    }
    counts = {
        name: [a + b for a, b in zip(none, gain, strict=False)] for name, gain in gains.items()
    }
    summary = analyze(make_counts(tmp_path, images=1000, none=none, **counts)).summary
    assert summary.startswith(
        'Helps: much (+1.95). '
        'Helps, by less than the 0.5 points that matter: little (+0.19). '
        'Hurts: worse (-1.95). No difference that matters: same (+0.00). '
        'Undecided: noisy (+0.04), alike (+1.70). In parentheses, the mean difference from none in '
        'points of accuracy, over 5 to 10 pairs.'
    )


def test_a_study_without_runs_of_the_baseline_has_no_comparison(tmp_path):
    analysis = analyze(make_counts(tmp_path, images=50, none=[], ssa=[40, 41]))
    assert analysis.comparisons == ()
    assert analysis.binomial_standard_error is None
    assert 'No variant has a pair with none yet. 2 of 4 runs are missing.' in analysis.summary


def test_what_cannot_be_analyzed_is_named(tmp_path):
    folder = make_counts(tmp_path, images=50, none=[], ssa=[])
    with pytest.raises(ConfigError, match='no finished run yet'):
        analyze(folder)
    folder = make_counts(tmp_path, images=50, none=[40], ssa=[40])
    np.save(folder.labels, np.zeros(51, np.int32))
    with pytest.raises(ConfigError, match=r'000.npz has outputs of shapes .*Remove it'):
        analyze(folder)
    np.save(folder.labels, np.zeros(50, np.int32))
    record = folder.read_run('ssa', 0)
    record.log_probs[3] = np.nan
    folder.write_run('ssa', 0, record)
    with pytest.raises(ConfigError, match='not finite: the network has diverged'):
        analyze(folder)
