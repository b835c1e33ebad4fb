"""A study with made-up numbers, which need not fit each other."""

import json

import numpy as np

from ssanet_jax.study import results
from ssanet_jax.study.folder import StudyFolder

NAMES = (
    'none', 'ssa', 'ssa_mean', 'ssa_max', 'ssa_grouped', 'se', 'eca', 'cbam', 'simam', 'conv_gate',
    'constant', 'shuffled',
)  # fmt: skip
CORRUPTIONS = ('noise_1', 'noise_2', 'shift_1')


def estimate(values):
    values = np.asarray(values, float)
    if len(values) == 1:
        return results.Estimate(
            (float(values[0]),), float(values[0]), None, None, None, 'No interval.'
        )
    mean, sd = values.mean(), values.std(ddof=1)
    half = 2 * sd / len(values) ** 0.5
    return results.Estimate(tuple(values.tolist()), mean, sd, mean - half, mean + half)


def paired_test(variant, values):
    difference = estimate(values)
    verdict = 'undecided'
    if difference.low is not None and difference.low > 0:
        verdict = 'helps'
    elif difference.low is not None and difference.high < 0:
        verdict = 'hurts'
    wins, ties = sum(v > 0 for v in values), sum(v == 0 for v in values)
    better = results.Proportion(0.725, 0.5512, 0.891, wins, ties, len(values) - wins - ties)
    sentence = f'{variant} differs by {difference.mean:+.2f} points.'
    return results.PairedTest(difference, better, 0.0123, 0.00049, 12, verdict, sentence)


def analysis(names=NAMES, pairs=20, corruptions=CORRUPTIONS, question='Does attention help?'):
    """An analysis of `pairs` runs of each variant; the first is the baseline."""
    rng, images = np.random.default_rng(0), 1079
    errors = {
        name: rng.binomial(images, 0.02 - 0.0006 * (i % 7), size=pairs)
        for i, name in enumerate(names)
    }
    accuracy = {name: 100 - 100 * wrong / images for name, wrong in errors.items()}
    seeds = tuple(range(pairs))
    variants = tuple(
        results.VariantResult(
            name=name,
            seeds=seeds,
            accuracy=estimate(accuracy[name]),
            nll=estimate(rng.normal(0.07, 0.01, pairs)),
            ece=estimate(rng.normal(0.012, 0.003, pairs)),
            corruptions={kind: estimate(accuracy[name] - 9) for kind in corruptions},
            corrupted=estimate(accuracy[name] - 9) if corruptions else None,
            train_loss=_curve(i),
            parameters=272_474 + 100 * i,
            macs=2_540_000 + 7_000 * i,
            memory_bytes=None if i == 1 else 31_000_000 + 1_000_000 * i,
            seconds=30.0 + 3 * (i % 5) + i / 10,
            images_per_second=1234.5 - 10 * i,
        )
        for i, name in enumerate(names)
    )
    comparisons = tuple(_comparison(name, names[0], accuracy, seeds, corruptions)
                        for name in names[1:])  # fmt: skip
    return results.Analysis(
        name='digits',
        question=question,
        baseline=names[0],
        smallest_effect=0.3,
        num_test=images,
        binomial_standard_error=0.41,
        variants=variants,
        comparisons=comparisons,
        runs=len(names) * pairs,
        missing=3,
        missing_pairs={names[1]: 3} if len(names) > 1 else {},
        summary='A paragraph.',
    )


def _curve(i):
    steps = np.arange(20, 460, 20)
    mean = 2.3 * np.exp(-steps / (70 + 4 * i)) + 0.01
    return results.Curve(tuple(steps.tolist()), tuple(mean.tolist()), tuple((mean / 5).tolist()))


def _comparison(name, baseline, accuracy, seeds, corruptions):
    values = accuracy[name] - accuracy[baseline]
    return results.Comparison(
        variant=name,
        seeds=seeds,
        accuracy=paired_test(name, values),
        nll=estimate(-0.01 * values - 0.001),
        ece=estimate(-0.001 * values),
        mcnemar=results.McNemar(1234, 1180, 0.271),
        corruptions={kind: estimate(values) for kind in corruptions},
        corrupted=paired_test(name, 2 * values) if corruptions else None,
    )


def folder(path):
    """A study folder with study.json."""
    description = {
        'config': {'num_epochs': 40.0, 'batch_size': 64},
        'dataset': {
            'name': 'digits', 'train_split': 'train[:50%]', 'eval_split': 'train[50%:]+test',
            'num_train': 718, 'num_test': 1079,
        },
        'code': {'ssanet_jax': '1.2', 'commit': '0123456789ab', 'jax': '0.10.2'},
        'machines': [{'cpu': 'AMD EPYC', 'cores': 2, 'device': 'cpu', 'python': '3.11.7'}],
    }  # fmt: skip
    study = StudyFolder(path)
    study.description.write_text(json.dumps(description))
    return study
