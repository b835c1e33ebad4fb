"""The parts of a report that are made of the evaluation images."""

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
from ssanet_jax.report.pictures import picture
from ssanet_jax.tables import Column, Table
from ssanet_jax.trained.gate_display import statistics_table
from ssanet_jax.trained.load import TrainedModel

_BATCH_SIZE = 64  # images that gates are computed of at a time


class Hard(NamedTuple):
    """An image with a high loss; probabilities in percent, the loss in nats."""

    picture: str
    number: int
    label: str
    prediction: str
    right: bool
    probability: float
    of_label: float
    loss: float


class Gates(NamedTuple):
    """Of every attention block: a chart by depth and a table, over so many images."""

    chart: str
    table: Table
    images: int


class Calibration(NamedTuple):
    """As trained and with temperatures; `extreme` says why one would be none of use, or ''."""

    chart: str
    table: Table
    images: int
    temperature: float
    extreme: str


def hardest_images(evaluation: Evaluation, classes: Sequence[str]) -> list[Hard]:
    """The images that `evaluation.hardest` holds, the hardest first."""
    found = []
    for number, image in zip(*evaluation.hardest, strict=True):
        probabilities = scipy.special.softmax(evaluation.logits[number])
        label, prediction = evaluation.label[number], int(probabilities.argmax())
        found.append(
            Hard(
                picture=picture(image),
                number=int(number),
                label=classes[label],
                prediction=classes[prediction],
                right=bool(label == prediction),
                probability=100 * float(probabilities[prediction]),
                of_label=100 * float(probabilities[label]),
                loss=float(evaluation.loss[number]),
            )
        )
    return found


def gates_section(run: TrainedModel, evaluation: Evaluation) -> Gates | None:
    """What the gates do on a sample of the images; None where the network has no gate."""
    images = evaluation.sample.image
    try:
        find_gates(run.model, images.shape[1])
    except ValueError:
        return None
    batches = _batches(images)
    found = gate_statistics(run.model, run.variables, batches, preprocess=run.preprocess)
    table = statistics_table(found, 'Gates, from the first block to the last')
    return Gates(gates_chart(found), table, len(images))


def _batches(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """All of one shape, so that one program does for all."""
    rows = min(_BATCH_SIZE, len(images))
    for start in range(0, len(images), rows):
        some = images[start : start + rows]
        mask = np.arange(rows) < len(some)
        yield {'image': np.pad(some, [(0, rows - len(some)), *[(0, 0)] * 3]), 'mask': mask}


def calibration_section(logits: np.ndarray, label: np.ndarray) -> Calibration | None:
    """How sure the network is, and with temperatures; None of fewer than 2 images.

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
        extreme = 'the lower the temperature, the lower the loss, since nearly every image is right'
    elif temperature == TEMPERATURES[1]:
        extreme = 'the higher the temperature, the lower the loss: guessing would be better'
    columns = [
        Column('', left=True),
        Column('ECE', '{:.2f} %'.format),
        Column('mean probability', '{:.2f} %'.format),
        Column('right', '{:.2f} %'.format),
        Column('temperature', left=True),
    ]
    rows = [
        ('as trained', *_sureness(before), '1'),
        ('cross-fitted', *_sureness(after), f'{halves[0]:.3f} and {halves[1]:.3f}'),
    ]
    table = Table('Calibration', columns, rows)
    chart = reliability_chart(before, after)
    return Calibration(chart, table, len(label), temperature, extreme)


def _sureness(found: Reliability) -> tuple[float, float, float]:
    """Expected calibration error, mean probability, share that is right; in percent."""
    confidence, accuracy = (
        100 * float(np.nansum(values * found.images) / found.images.sum())
        for values in (found.confidence, found.accuracy)
    )
    return 100 * found.error, confidence, accuracy
