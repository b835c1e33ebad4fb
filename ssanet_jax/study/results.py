"""The analysis of a study as data: what results.json holds and the pages show.

Accuracies are percentages, their differences percentage points; negative log-likelihoods (NLL) are
nats per image; calibration errors (ECE) are shares from 0 to 1. Lower NLL and ECE are better.
Differences are variant minus baseline. A number that cannot be computed is None, in JSON null.
"""

import dataclasses
import json
from typing import Any, Literal

Verdict = Literal['helps', 'hurts', 'no difference that matters', 'undecided']


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean of one value per run or pair.

    Attributes:
      values: one per seed, in the order of `seeds` of the variant or comparison.
      mean: of the values.
      sd: their sample standard deviation (n - 1); None for one value.
      low, high: 95% bootstrap interval of the mean; None for one value.
      note: why the interval is missing or not a bootstrap's; mostly ''.
    """

    values: tuple[float, ...]
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    note: str = ''


@dataclasses.dataclass(frozen=True)
class Proportion:
    """The probability that the variant is better than the baseline on one seed.

    Attributes:
      value: share of pairs in which it is, ties counted half.
      low, high: 95% interval.
      wins, ties, losses: number of pairs.
    """

    value: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int

    @property
    def pairs(self) -> int:
        """Number of pairs; not in JSON."""
        return self.wins + self.ties + self.losses


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Test images of all pairs that exactly one of two networks classifies correctly.

    Attributes:
      only_variant, only_baseline: correct by this one alone, summed over pairs.
      p: of McNemar's test. Descriptive only: the same images recur in every pair.
    """

    only_variant: int
    only_baseline: int
    p: float


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Whether the accuracy of paired runs differs.

    Attributes:
      difference: in points.
      better: probability of higher accuracy.
      wilcoxon_p: of the two-sided signed-rank test.
      holm_p: corrected over all comparisons of the study.
      pairs_needed: for 80% power to detect the smallest effect at this standard deviation, at
        level 5% divided by the number of comparisons; None for one pair.
      verdict: by the rule of `verdict.decide`.
      sentence: the verdict and its numbers in plain words.
    """

    difference: Estimate
    better: Proportion
    wilcoxon_p: float
    holm_p: float
    pairs_needed: int | None
    verdict: Verdict
    sentence: str


@dataclasses.dataclass(frozen=True)
class Curve:
    """The training loss of the runs of a variant, at steps where all of them logged a finite one.

    Attributes:
      steps: [T].
      mean: over runs, [T].
      sd: sample standard deviation over runs, [T]; 0 for one run.
    """

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class VariantResult:
    """What the runs of one variant reached, and what it costs.

    Attributes:
      name: of the variant.
      seeds: of its runs, ascending.
      accuracy, nll, ece: on the test images, one value per run.
      corruptions: accuracy on each corruption of the test images, by name; {} without any.
      corrupted: accuracy averaged over all corruptions; None without any.
      train_loss: learning curve.
      parameters, macs: number of parameters and of multiply-accumulates per image.
      memory_bytes: of a training step; None if unknown.
      seconds: of training, mean over runs.
      images_per_second: training throughput, median over runs.
    """

    name: str
    seeds: tuple[int, ...]
    accuracy: Estimate
    nll: Estimate
    ece: Estimate
    corruptions: dict[str, Estimate]
    corrupted: Estimate | None
    train_loss: Curve
    parameters: int
    macs: int
    memory_bytes: int | None
    seconds: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A variant minus the baseline, on the seeds that both have.

    Attributes:
      variant: its name.
      seeds: of the pairs, ascending.
      accuracy: on the test images.
      nll, ece: differences; below 0 if the variant is better.
      mcnemar: on the test images of all pairs.
      corruptions: difference of accuracy on each corruption, by name; {} without any.
      corrupted: of accuracy averaged over all corruptions, corrected over the comparisons of this
        kind; None without any.
    """

    variant: str
    seeds: tuple[int, ...]
    accuracy: PairedTest
    nll: Estimate
    ece: Estimate
    mcnemar: McNemar
    corruptions: dict[str, Estimate]
    corrupted: PairedTest | None


@dataclasses.dataclass(frozen=True)
class Analysis:
    """A study, analyzed.

    Attributes:
      name, question, baseline, smallest_effect: as in study.json.
      num_test: number of test images.
      binomial_standard_error: standard deviation, in points, that the finite test set gives the
        accuracy of the baseline; None without its runs.
      variants: those with a run, in the order of study.json.
      comparisons: of the variants that have a pair with the baseline, in the same order.
      runs, missing: number of runs with a record, and without.
      missing_pairs: number of incomplete pairs, by variant; complete variants are left out.
      summary: a paragraph in plain words.
    """

    name: str
    question: str
    baseline: str
    smallest_effect: float
    num_test: int
    binomial_standard_error: float | None
    variants: tuple[VariantResult, ...]
    comparisons: tuple[Comparison, ...]
    runs: int
    missing: int
    missing_pairs: dict[str, int]
    summary: str

    def to_json(self) -> str:
        """The content of results.json: objects named as the attributes; no NaN."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + '\n'

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts and tuples, named as the attributes."""
        return dataclasses.asdict(self)
