"""Finds the bottleneck of a recipe's training on this machine, and suggests settings.

    ssanet input_doctor --config=imagenet_ssa50 --out=input.png

Times reading, decoding, the complete input pipeline, the transfer to the devices and the training
step, each alone and all together; prints a table and a verdict. --out also draws a timeline.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from ssanet_jax import data, runtime
from ssanet_jax.config.validation import check_batch_size
from ssanet_jax.data.builders import open_source
from ssanet_jax.data.decoded_batches import decode_batches
from ssanet_jax.data.decoding.decode import DecodeSpec
from ssanet_jax.data.sources import READ_SIZE, num_cores
from ssanet_jax.tools import cli
from ssanet_jax.tools.input_advice import Rates, advice, verdict
from ssanet_jax.training import trainer_setup
from ssanet_jax.training.parallel import to_devices
from ssanet_jax.training.trainer_setup import TrainerSetup

FLAGS = flags.FLAGS

Spans = list[tuple[str, float, float]]  # lane, start, end in seconds


def main() -> None:
    config = cli.recipe()
    config.dataset.initial_size = -1  # measures the largest images
    runtime.enable_compilation_cache()
    check_batch_size(config, jax.device_count())
    info = data.dataset_info(config)
    setup = trainer_setup.build(
        config, num_classes=info.num_classes, num_train_examples=info.num_train
    )
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    spans: Spans = []
    with console.status('starting') as status:
        rates = measure(config, setup, FLAGS.seconds, spans, status.update)
    print_table(console, config, rates)
    for line in verdict(rates, num_cores(), advice(config, info.hint)):
        console.print(line)
    console.print(f'For ssanet preflight: --decode_rate={rates.input / num_cores():.0f}')
    if FLAGS.out:
        with cli.writing_out(ValueError):
            draw(spans, f'{config.dataset.name}, {config.model.name}', FLAGS.out)
        console.print(f'Timeline written to {FLAGS.out}')


def measure(
    config: ConfigDict,
    setup: TrainerSetup,
    seconds: float,
    spans: Spans,
    show: Callable[[str], None],
) -> Rates:
    """Times each part alone, then all together; the steps of the latter go into `spans`."""
    size = config.batch_size
    show('measuring the input')
    batch = next(data.train_batches(config))
    read = decode = None
    if not config.dataset.in_memory:
        read, decode = measure_input(config, seconds)
    pipeline = throughput((len(b['label']) for b in data.train_batches(config)), seconds)

    show('measuring the transfer and the training step')
    (on_devices,) = to_devices([batch], setup.mesh)
    transfer = throughput(
        (size for b in to_devices(itertools.repeat(batch), setup.mesh) if jax.block_until_ready(b)),
        seconds,
    )
    step = throughput(steps(setup, itertools.repeat(on_devices), size, []), seconds)
    show('measuring all together')
    batches = to_devices(timed_batches(config, spans), setup.mesh)
    together = throughput(steps(setup, batches, size, spans), seconds)
    return Rates(read, decode, pipeline, transfer, step, together)


def measure_input(config: ConfigDict, seconds: float) -> tuple[float, float]:
    """Images per second of reading and of decoding, each alone."""
    source = open_source(config.dataset, config.dataset.train_split)

    def encoded() -> Iterator[Any]:
        return source.training(
            seed=config.seed,
            batch_size=config.batch_size,
            start_step=0,
            shard=data.HostShard(0, 1),
            repeats=config.dataset.repeats,
        )

    read = throughput((len(batch) for batch in encoded()), seconds)
    some = list(itertools.islice(encoded(), max(4, math.ceil(config.batch_size / READ_SIZE))))
    spec = DecodeSpec(config.dataset, config.dataset.train_crop, config.seed, source.size)
    decoded = decode_batches(itertools.cycle(some), spec, config.batch_size)
    return read, throughput((len(batch.image) for batch in decoded), seconds)


def throughput(counts: Iterator[int], seconds: float) -> float:
    """Images per second of an iterator that yields numbers of images, after three of them."""
    for _ in range(3):
        next(counts)
    start, images_done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images_done += next(counts)
    passed = time.perf_counter() - start
    if hasattr(counts, 'close'):
        counts.close()
    return images_done / passed


def timed_batches(config: ConfigDict, spans: Spans) -> Iterator[data.Batch]:
    """Yields training batches; the waits for them go into `spans`."""
    batches = data.train_batches(config)
    while True:
        start = time.perf_counter()
        batch = next(batches)
        spans.append(('waiting for a batch', start, time.perf_counter()))
        yield batch


def steps(setup: TrainerSetup, batches: Iterator[Any], size: int, spans: Spans) -> Iterator[int]:
    state, total = setup.init(), setup.zero_metrics()
    for batch in batches:
        start = time.perf_counter()
        state, total = setup.train_step(state, batch, total)
        jax.block_until_ready(total)
        spans.append(('training step', start, time.perf_counter()))
        yield size


def print_table(console: Console, config: ConfigDict, rates: Rates) -> None:
    cores = num_cores()
    table = Table(
        title=f'{config.dataset.name} for {config.model.name}, batches of {config.batch_size}, '
        f'{cores} cores, {jax.device_count()} x {jax.devices()[0].device_kind}',
        title_justify='left',
    )
    table.add_column('alone')
    table.add_column('images/s', justify='right')
    table.add_column('times the step', justify='right')
    names = {
        'read': 'reading from disk',
        'decode': 'decoding and cropping',
        'input': 'the whole input, into batches',
        'transfer': 'transfer to the devices',
        'step': 'training step',
    }
    for field, name in names.items():
        value = getattr(rates, field)
        if value is not None:
            table.add_row(name, f'{value:,.0f}', f'{value / rates.step:.2f}')
    table.add_section()
    table.add_row('all together', f'{rates.together:,.0f}', f'{rates.together / rates.step:.2f}')
    console.print(table)


def draw(spans: Spans, title: str, path: str) -> None:
    """Writes a PNG timeline of waits for input and training steps."""
    from matplotlib.figure import Figure

    lanes = {'waiting for a batch': '#d9822b', 'training step': '#2f6690'}
    shown = spans[-24:]
    begin, end = shown[0][1], max(stop for _, _, stop in shown)
    figure = Figure(figsize=(9, 2.2), layout='constrained')
    axes = figure.subplots()
    for row, (lane, color) in enumerate(lanes.items()):
        bars = [(start - begin, stop - start) for name, start, stop in shown if name == lane]
        axes.broken_barh(bars, (row - 0.4, 0.8), color=color, edgecolor='white', linewidth=0.5)
        share = sum(length for _, length in bars) / (end - begin)
        axes.text((end - begin) * 1.01, row, f'{share:.0%}', va='center')
    axes.set_yticks(range(len(lanes)), lanes)
    axes.invert_yaxis()
    axes.set_xlim(0, (end - begin) * 1.08)
    axes.set_xlabel('seconds')
    axes.set_title(f'The last steps of {title}', fontsize=10, loc='left')
    axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=150)


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_float('seconds', 5.0, 'Seconds of each measurement.', lower_bound=0.1)
    flags.DEFINE_string('out', None, 'PNG file for the timeline.')


if __name__ == '__main__':
    cli.run(main, define_flags)
