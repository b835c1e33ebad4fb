"""ssanet input_doctor: its rates, table and timeline."""

import contextlib
import itertools

from PIL import Image
from rich.console import Console

from ssanet_jax.data import decoded_batches
from ssanet_jax.tools import input_doctor


def test_input_doctor_draws_its_timeline_and_table(imagenet, tmp_path, capsys):
    rates = input_doctor.Rates(9000.0, 2000.0, 1800.0, 50000.0, 3000.0, 1750.0)
    input_doctor.print_table(Console(), imagenet, rates)
    printed = capsys.readouterr().out
    assert ['decoding and cropping', '2,000', '0.67'] in [
        [cell.strip() for cell in line.split('│')[1:-1]] for line in printed.splitlines()
    ]
    spans = [('waiting for a batch', 0.0, 0.1), ('training step', 0.1, 0.5)]
    input_doctor.draw(spans, 'imagenet', str(tmp_path / 'timeline.png'))
    with Image.open(tmp_path / 'timeline.png') as picture:
        assert picture.width > 500


def test_input_doctor_counts_images_per_second_after_three_batches(monkeypatch):
    ticks = itertools.count(100.0, 0.5)
    monkeypatch.setattr(input_doctor.time, 'perf_counter', lambda: next(ticks))
    counts = iter([1000, 1000, 1000, 8, 8, 8, 8, 8])
    assert input_doctor.throughput(counts, 1.5) == 2 * 8 / 2.0  # asked the time at 0, 0.5, ..., 2


def test_input_doctor_times_reading_alone_and_decoding_alone(imagenet, monkeypatch):
    decoded, decode = [], decoded_batches.decode

    def counted(files, *rest):
        decoded.extend(files)
        return decode(files, *rest)

    monkeypatch.setattr(decoded_batches, 'decode', counted)

    def first(counts, seconds):
        with contextlib.closing(counts):
            return next(counts), len(decoded)

    monkeypatch.setattr(input_doctor, 'throughput', first)
    (read, before), (images, after) = input_doctor.measure_input(imagenet, 0.2)
    assert read > before == 0
    assert after >= images == imagenet.batch_size
