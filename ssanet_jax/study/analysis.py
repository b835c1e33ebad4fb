"""Analyzes the raw data of a study."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.errors import ConfigError
from ssanet_jax.study import statistics, verdict
from ssanet_jax.study.folder import RunRecord, StudyFolder
from ssanet_jax.study.results import (
    Analysis,
    Comparison,
    Curve,
    PairedTest,
    VariantResult,
)
from ssanet_jax.study.statistics import estimate


class _Run(NamedTuple):
    """A record, reduced to what the analysis needs.

    Attributes:
      correct: whether each test image is classified correctly, bool [N].
      corrupted: the same of each corruption, bool [C, N].
      loss: training loss by step, where it is finite.
    """

    correct: np.ndarray
    corrupted: np.ndarray
    nll: float
    ece: float
    loss: dict[int, float]
    seconds: float
    images_per_second: float


_Runs = Mapping[int, _Run]  # by seed, ascending


def analyze(folder: StudyFolder) -> Analysis:
    """Reads the runs of a study and compares each variant with the baseline.

    An incomplete study is analyzed with the runs and pairs that it has.

    Raises:
      ConfigError: a file is missing or damaged, or there is no run.
    """
    study = folder.read_description()
    if not any(folder.finished()):
        raise ConfigError(f'{folder} holds no finished run yet; expected some in {folder.runs}.')
    labels = folder.read_labels()
    runs = _read_runs(folder, study, labels)
    baseline, seeds = study['baseline'], set(study['seeds'])
    variants = {name: _variant(name, study, by_seed) for name, by_seed in runs.items() if by_seed}
    count = sum(map(len, runs.values()))
    error = None
    if baseline in variants:
        error = statistics.binomial_standard_error(variants[baseline].accuracy.mean, len(labels))
    result = Analysis(
        name=study['name'],
        question=study['question'],
        baseline=baseline,
        smallest_effect=study['smallest_effect'],
        num_test=len(labels),
        binomial_standard_error=error,
        variants=tuple(variants.values()),
        comparisons=_comparisons(study, runs),
        runs=count,
        missing=len(runs) * len(seeds) - count,
        missing_pairs={
            name: missing
            for name in runs
            if name != baseline and (missing := len(seeds - (runs[name].keys() & runs[baseline])))
        },
        summary='',
    )
    return dataclasses.replace(result, summary=verdict.summarize(result))


def write_results(folder: StudyFolder) -> Analysis:
    """Analyzes a study and writes results.json, whole or not at all; raises as `analyze`."""
    result = analyze(folder)
    with atomic_write(folder.results) as temporary:
        temporary.write_text(result.to_json())
    return result


def _read_runs(
    folder: StudyFolder, study: Mapping[str, Any], labels: np.ndarray
) -> dict[str, dict[int, _Run]]:
    """The runs of each variant in study.json; raises ConfigError."""
    finished = set(folder.finished())
    runs: dict[str, dict[int, _Run]] = {name: {} for name in study['variants']}
    for name, by_seed in runs.items():
        for seed in sorted(study['seeds']):
            if (name, seed) in finished:
                record = folder.read_run(name, seed)
                _check(record, labels, len(study['corruptions']), folder.run_path(name, seed))
                by_seed[seed] = _reduce(record, labels)
    return runs


def _check(record: RunRecord, labels: np.ndarray, corruptions: int, path: Path) -> None:
    """Raises ConfigError unless the record fits the labels and study.json."""
    shapes = record.log_probs.shape[:1], record.predictions.shape
    expected = labels.shape, (corruptions, len(labels))
    if shapes != expected:
        raise ConfigError(
            f'{path} has outputs of shapes {shapes}, but labels.npy and study.json make '
            f'{expected}. Remove it and run the study again.'
        )
    if not np.isfinite(record.log_probs).all():
        raise ConfigError(
            f'{path} has log-probabilities that are not finite: the network has diverged. Lower '
            'the learning rate and run the study in a new --out.'
        )


def _reduce(record: RunRecord, labels: np.ndarray) -> _Run:
    logged = zip(record.steps.tolist(), record.train_loss.tolist(), strict=True)
    return _Run(
        correct=record.log_probs.argmax(axis=1) == labels,
        corrupted=record.predictions == labels,
        nll=statistics.negative_log_likelihood(record.log_probs, labels),
        ece=statistics.calibration_error(record.log_probs, labels),
        loss={step: loss for step, loss in logged if math.isfinite(loss)},
        seconds=record.seconds,
        images_per_second=record.images_per_second,
    )


def _variant(name: str, study: Mapping[str, Any], by_seed: _Runs) -> VariantResult:
    runs, cost, kinds = by_seed.values(), study['variants'][name], study['corruptions']
    return VariantResult(
        name=name,
        seeds=tuple(by_seed),
        accuracy=estimate([_points(run.correct) for run in runs]),
        nll=estimate([run.nll for run in runs]),
        ece=estimate([run.ece for run in runs]),
        corruptions={
            kind: estimate([_points(run.corrupted[i]) for run in runs])
            for i, kind in enumerate(kinds)
        },
        corrupted=estimate([_points(run.corrupted) for run in runs]) if kinds else None,
        train_loss=_curve([run.loss for run in runs]),
        parameters=cost['parameters'],
        macs=cost['macs'],
        memory_bytes=cost['memory_bytes'],
        seconds=float(np.mean([run.seconds for run in runs])),
        images_per_second=float(np.median([run.images_per_second for run in runs])),
    )


def _curve(losses: Sequence[Mapping[int, float]]) -> Curve:
    steps = sorted(set.intersection(*map(set, losses)))
    values = np.array([[loss[step] for step in steps] for loss in losses])
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(steps))
    return Curve(tuple(steps), tuple(values.mean(axis=0).tolist()), tuple(sd.tolist()))


def _comparisons(study: Mapping[str, Any], runs: Mapping[str, _Runs]) -> tuple[Comparison, ...]:
    """The comparisons with the baseline that have a pair."""
    baseline, smallest, kinds = study['baseline'], study['smallest_effect'], study['corruptions']
    pairs: dict[str, dict[int, tuple[_Run, _Run]]] = {}
    for name, by_seed in runs.items():
        shared = [seed for seed in by_seed if seed in runs[baseline]]
        if shared and name != baseline:
            pairs[name] = {seed: (by_seed[seed], runs[baseline][seed]) for seed in shared}
    clean = {
        name: np.array([_points(a.correct, b.correct) for a, b in by_seed.values()])
        for name, by_seed in pairs.items()
    }
    corrupted = {
        name: np.array([_points(a.corrupted, b.corrupted) for a, b in by_seed.values()])
        for name, by_seed in pairs.items()
        if kinds
    }
    tests = verdict.compare(clean, baseline, smallest, 'on the test images')
    corrupted_tests = verdict.compare(corrupted, baseline, smallest, 'on corrupted test images')
    return tuple(
        _comparison(name, by_seed, tests[name], corrupted_tests.get(name), kinds)
        for name, by_seed in pairs.items()
    )


def _comparison(
    variant: str,
    by_seed: Mapping[int, tuple[_Run, _Run]],
    accuracy: PairedTest,
    corrupted: PairedTest | None,
    kinds: Sequence[str],
) -> Comparison:
    pairs = by_seed.values()
    return Comparison(
        variant=variant,
        seeds=tuple(by_seed),
        accuracy=accuracy,
        nll=estimate([a.nll - b.nll for a, b in pairs]),
        ece=estimate([a.ece - b.ece for a, b in pairs]),
        mcnemar=statistics.mcnemar(
            np.array([a.correct for a, _ in pairs]), np.array([b.correct for _, b in pairs])
        ),
        corruptions={
            kind: estimate([_points(a.corrupted[i], b.corrupted[i]) for a, b in pairs])
            for i, kind in enumerate(kinds)
        },
        corrupted=corrupted,
    )


def _points(correct: np.ndarray, other: np.ndarray | None = None) -> float:
    """Accuracy in percent, or its difference from another's in points.

    Counts are subtracted before the division, so that equal differences are equal bit for bit, as
    ties in a rank test must be.
    """
    count = int(correct.sum()) - (0 if other is None else int(other.sum()))
    return 100 * count / correct.size
