"""Sections of a report that need the evaluation images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from ssanet_jax.analysis.calibration import (
    TEMPERATURES,
    Reliability,
    cross_fitted,
    fit_temperature,
    reliability,
)
from ssanet_jax.analysis.gates import find_gates, gate_statistics
from ssanet_jax.report.charts import gates_chart, reliability_chart
from ssanet_jax.report.evaluation import Evaluation
from ssanet_jax.report.thumbnails import thumbnail
from ssanet_jax.tables import Column, Table
from ssanet_jax.trained.gate_display import statistics_table
from ssanet_jax.trained.load import TrainedModel

_BATCH_SIZE = 64  # for gates


class HardExample(NamedTuple):
    """An image with a high loss, in nats; probabilities are in percent."""

    thumbnail: str
    name: str
    label: str
    prediction: str
    correct: bool
    confidence: float
    label_probability: float
    loss: float


class Gates(NamedTuple):
    """Gate statistics of every attention block over a number of images."""

    chart: str
    table: Table
    images: int


class Calibration(NamedTuple):
    """Calibration as trained and with temperature scaling.

    Attributes:
      chart: a reliability diagram.
      table: calibration error, confidence and accuracy.
      images: how many were used.
      temperature: fitted on all images.
      extreme: why the temperature is at a limit of the search, or ''.
    """

    chart: str
    table: Table
    images: int
    temperature: float
    extreme: str


def hard_examples(evaluation: Evaluation, classes: Sequence[str]) -> list[HardExample]:
    """The images of `evaluation.hardest`, hardest first."""
    examples = []
    for position, image in zip(*evaluation.hardest, strict=True):
        probabilities = scipy.special.softmax(evaluation.logits[position])
        label, prediction = evaluation.label[position], int(probabilities.argmax())
        examples.append(
            HardExample(
                thumbnail=thumbnail(image),
                name=evaluation.names[position],
                label=classes[label],
                prediction=classes[prediction],
                correct=bool(label == prediction),
                confidence=100 * float(probabilities[prediction]),
                label_probability=100 * float(probabilities[label]),
                loss=float(evaluation.loss[position]),
            )
        )
    return examples


def gates_section(trained: TrainedModel, evaluation: Evaluation) -> Gates | None:
    """Gate statistics on `evaluation.sample`; None if the network has no gates."""
    images = evaluation.sample.image
    try:
        find_gates(trained.model, images.shape[1])
    except ValueError:
        return None
    batches = _batches(images)
    statistics = gate_statistics(
        trained.model, trained.variables, batches, preprocess=trained.preprocess
    )
    table = statistics_table(statistics, 'Gates, from first to last block')
    return Gates(gates_chart(statistics), table, len(images))


def _batches(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Batches of one shape, so that the program is compiled once."""
    rows = min(_BATCH_SIZE, len(images))
    for start in range(0, len(images), rows):
        some = images[start : start + rows]
        mask = np.arange(rows) < len(some)
        yield {'image': np.pad(some, [(0, rows - len(some)), *[(0, 0)] * 3]), 'mask': mask}


def calibration_section(logits: np.ndarray, label: np.ndarray) -> Calibration | None:
    """Calibration and temperature scaling; None for fewer than 2 images.

    Args:
      logits: finite [N, K].
      label: int [N], from 0 to K - 1.
    """
    if len(label) < 2:
        return None
    before = reliability(scipy.special.softmax(logits, axis=1), label)
    probabilities, halves = cross_fitted(logits, label)
    after, temperature = reliability(probabilities, label), fit_temperature(logits, label)
    extreme = ''
    if temperature == TEMPERATURES[0]:
        extreme = 'lower temperatures keep reducing the loss, since nearly every image is correct'
    elif temperature == TEMPERATURES[1]:
        extreme = 'higher temperatures keep reducing the loss: guessing would be better'
    columns = [
        Column('', left=True),
        Column('ECE', '{:.2f} %'.format),
        Column('confidence', '{:.2f} %'.format),
        Column('accuracy', '{:.2f} %'.format),
        Column('temperature', left=True),
    ]
    rows = [
        ('as trained', *_summary(before), '1'),
        ('cross-fitted', *_summary(after), f'{halves[0]:.3f} and {halves[1]:.3f}'),
    ]
    table = Table('Before and after temperature scaling', columns, rows)
    chart = reliability_chart(before, after)
    return Calibration(chart, table, len(label), temperature, extreme)


def _summary(curve: Reliability) -> tuple[float, float, float]:
    """Expected calibration error, mean confidence and accuracy, in percent."""
    confidence, accuracy = (
        100 * float(np.nansum(values * curve.counts) / curve.counts.sum())
        for values in (curve.confidence, curve.accuracy)
    )
    return 100 * curve.ece, confidence, accuracy
