"""Writes the tables of docs/results.md from the raw data of the studies and the released logs.

make results
"""

import csv
import statistics

import numpy as np
from common import ROOT, fill, markdown

from ssanet_jax.study import verdict
from ssanet_jax.study.analysis import analyze
from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.study.results import Analysis
from ssanet_jax.study.statistics import binomial_standard_error
from ssanet_jax.study.tables import accuracy_table, corrupted_table
from ssanet_jax.tables import markdown as table_markdown

LOGS = ROOT / 'ssanet_jax' / 'report' / 'reference'
RESULTS = ROOT / 'studies' / 'results'
# The studies, each with the controls that SSA itself is compared with.
STUDIES = {
    'digits': ('constant', 'shuffled', 'conv_gate'),
    'ablations': (),
    'fashion_mnist': ('constant',),
}
TEST_IMAGES = {'cifar10': 10_000, 'cifar100': 10_000, 'imagenet': 50_000}
LAST = 20  # epochs


def main() -> None:
    tables = {'logs': logs()}
    for name, controls in STUDIES.items():
        analysis = analyze(StudyFolder(RESULTS / name))
        tables[name] = table_markdown(accuracy_table(analysis))
        if any(comparison.corrupted for comparison in analysis.comparisons):
            tables[f'{name} corrupted'] = table_markdown(corrupted_table(analysis))
        if controls:
            tables[f'{name} controls'] = against_controls(analysis, controls)
    fill(ROOT / 'docs' / 'results.md', tables)


def against_controls(analysis: Analysis, controls: tuple[str, ...]) -> str:
    """One sentence on SSA minus each control."""
    accuracy = {
        variant.name: dict(zip(variant.seeds, variant.accuracy.values, strict=True))
        for variant in analysis.variants
    }
    sentences = []
    for control in controls:
        seeds = sorted(accuracy['ssa'].keys() & accuracy.get(control, {}).keys())
        # Rounded, so that equal differences tie.
        differences = np.array(
            [round(accuracy['ssa'][seed] - accuracy[control][seed], 9) for seed in seeds]
        )
        tests = verdict.compare(
            {'ssa': differences}, control, analysis.smallest_effect, 'on the test images'
        )
        sentences.append(f'* Against `{control}`: {tests["ssa"].sentence}')
    return '\n'.join(sentences)


def logs() -> str:
    """Best, last and late accuracy of the authors' released runs."""
    rows = []
    for path in sorted(LOGS.glob('*.csv')):
        dataset, _, network = path.stem.partition('_')
        with path.open() as file:
            epochs = list(csv.DictReader(file))
        column = 'val_top1' if dataset == 'imagenet' else 'test_top1'
        top1 = [float(epoch[column]) for epoch in epochs]
        best = max(top1)
        error = binomial_standard_error(best, TEST_IMAGES[dataset])
        late = top1[-LAST:]
        rows.append([
            dataset, network, str(len(top1)), f'{best:.2f} ({top1.index(best) + 1})',
            f'{top1[-1]:.2f}', f'{statistics.mean(late):.2f} ± {statistics.stdev(late):.2f}',
            f'{error:.2f}',
        ])  # fmt: skip
    header = [
        'dataset', 'network', 'epochs', 'best (epoch)', 'last', f'last {LAST} epochs',
        'binomial standard error',
    ]  # fmt: skip
    return markdown(header, rows)


if __name__ == '__main__':
    main()
