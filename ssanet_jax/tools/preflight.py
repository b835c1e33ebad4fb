r"""Compiles a recipe's training and evaluation steps for TPUs or GPUs that are not here.

    pip install 'ssanet-jax[train,preflight-tpu,preflight-cuda]'
    ssanet preflight --config=imagenet_ssa50 --topology=v5e:4x4
    ssanet preflight --config=imagenet_ssa50 --topology=h100x8

The vendors' own compilers run on any Linux machine. Says whether the steps compile and fit the
memory of a device, the largest batch that does, the collectives between devices, and a time that no
step can beat: a bound from published peak rates, not a measurement. It reads no data;
docs/preflight.md explains each row.
"""

import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ssanet_jax import runtime
from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.config import make_plan
from ssanet_jax.config.sizes import eval_batch_size
from ssanet_jax.config.validation import check_batch_norm_group_size, check_batch_size
from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.tables import FORMATS, show
from ssanet_jax.targets import find_topology
from ssanet_jax.targets.bound import Bound, bound
from ssanet_jax.targets.device_type import DeviceType
from ssanet_jax.tools import cli
from ssanet_jax.tools.batch_search import Attempt, largest_batch
from ssanet_jax.tools.compile_step import (
    Request,
    Step,
    StepCost,
    TooLarge,
    compile_apart,
    versions_of,
)
from ssanet_jax.tools.preflight_data import Sizes, dataset_sizes, host_decode_rate
from ssanet_jax.tools.preflight_report import (
    Preflight,
    Target,
    binary,
    data,
    does_not_fit,
    plural,
    table,
    verdict,
)

FLAGS = flags.FLAGS


def main() -> None:
    runtime.use_cpu()
    config = cli.recipe()
    target = Target(*find_topology(FLAGS.topology))
    sizes = dataset_sizes(config)
    check_batch_size(config, target.num_devices)
    check_batch_norm_group_size(config, target.num_devices)
    check_compiler(target.kind)

    def compile_step(step: Step, images: int) -> StepCost | TooLarge:
        request = Request(config, target.topology, step, images, sizes.num_classes, sizes.num_train)
        return compile_with_progress(request, target.kind)

    found = preflight(
        config,
        target,
        sizes,
        compile_step,
        search=FLAGS.search,
        decode_rate=host_decode_rate(config),
    )
    versions = versions_of(target.kind)
    if FLAGS.format == 'json':
        print(json.dumps(data(config, found, versions), indent=2))
    else:
        show([table(config, found, versions)], FLAGS.format)
        print(f'\n{verdict(config, found)}')
    if FLAGS.out:
        with cli.writing_out(), atomic_write(Path(FLAGS.out)) as temporary:
            temporary.write_text(json.dumps(data(config, found, versions), indent=2) + '\n')


def preflight(
    config: ConfigDict,
    target: Target,
    sizes: Sizes,
    compile_step: Callable[[Step, int], StepCost | TooLarge],
    *,
    search: bool,
    decode_rate: float | None = None,
) -> Preflight:
    """Compiles both steps, and the training step with larger batches for `search`.

    Args:
      config: of the run.
      target: to compile for.
      sizes: of the dataset.
      compile_step: compiles a step for a number of images on one device.
      search: whether to find the largest batch that fits.
      decode_rate: images per second of one host core, or None if not known.

    Raises:
      ConfigError: a batch does not fit a device's memory; the message has the largest that does.
      RunError: a step does not compile.
    """
    images: dict[Step, int] = {
        'train': config.batch_size // target.num_devices,
        'eval': -(-eval_batch_size(config) // target.num_devices),
    }
    train = compile_step('train', images['train'])
    available = getattr(train, 'available', None) or target.kind.usable_memory
    batches = {images['train']: as_attempt(train, target.kind)}

    def attempt(batch: int) -> Attempt:
        try:
            return as_attempt(compile_step('train', batch), target.kind)
        except RunError as error:  # the compiler fails for this size only
            return Attempt(False, None, str(error))

    if search:
        parts = config.micro_batches
        found = largest_batch(
            lambda size: attempt(size * parts),  # of a micro-batch
            {images['train'] // parts: batches[images['train']]},
            fixed=train.arguments if isinstance(train, StepCost) else 0,
            available=available,
            limit=max(images['train'], sizes.num_train // target.num_devices) // parts,
        )
        batches = {size * parts: result for size, result in found.items()}
    if isinstance(train, TooLarge) or not batches[images['train']].fits:
        raise ConfigError(does_not_fit(images['train'], batches, target, available))
    evaluation = compile_step('eval', images['eval'])
    if isinstance(evaluation, TooLarge) or not as_attempt(evaluation, target.kind).fits:
        raise ConfigError(
            f'An evaluation batch of {images["eval"]} per device does not fit {target.topology}; '
            'lower --config.eval_batch_size.'
        )
    costs: dict[Step, StepCost] = {'train': train, 'eval': evaluation}
    bounds = {
        step: bound(
            target.kind, flops=cost.flops, traffic=cost.traffic, collectives=cost.collectives
        )
        for step, cost in costs.items()
    }
    hours = device_hours(config, target.num_devices, sizes, images, bounds)
    return Preflight(target, images, costs, bounds, batches, hours, decode_rate)


def as_attempt(result: StepCost | TooLarge, kind: DeviceType) -> Attempt:
    """Whether a compiled step fits the memory of a device."""
    if isinstance(result, TooLarge):
        return Attempt(False, result.needed)
    return Attempt(result.memory <= kind.usable_memory, result.memory)


def compile_with_progress(request: Request, kind: DeviceType) -> StepCost | TooLarge:
    """`compile_apart`, with the time that passes and the outcome on stderr."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    name = {'train': 'training', 'eval': 'evaluation'}[request.step]
    text = f'{name} step, {request.images} {plural("image", request.images)} per device'
    columns = SpinnerColumn(), TextColumn('{task.description}'), TimeElapsedColumn()
    start, quiet = time.perf_counter(), not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        progress.add_task(f'compiling the {text}')
        result = compile_apart(request)
    attempt = as_attempt(result, kind)
    needs = '' if attempt.needed is None else f'needs {binary(attempt.needed)}, '
    outcome = 'fits' if attempt.fits else 'does not fit'
    seconds = time.perf_counter() - start
    console.print(f'{text}: {needs}{outcome} ({seconds:.0f} s)', soft_wrap=True)
    return result


def check_compiler(kind: DeviceType) -> None:
    """Raises ConfigError if the package that compiles for the device is not installed."""
    if importlib.util.find_spec(kind.compiler) is None:
        raise ConfigError(
            f'The compiler for {kind.name}, {kind.compiler}, is not installed; run: '
            f"pip install 'ssanet-jax[{kind.extra}]' (Linux; needs no such device)."
        )


def device_hours(
    config: ConfigDict,
    num_devices: int,
    sizes: Sizes,
    images: dict[Step, int],
    bounds: dict[Step, Bound],
) -> float:
    """Device-hours of all steps of the schedule at the bound, evaluations included if known."""
    plan = make_plan(config, sizes.num_train)
    seconds = plan.num_train_steps * bounds['train'].seconds
    if sizes.num_eval:
        evaluations = math.ceil(plan.num_train_steps / plan.eval_every_steps)
        steps = math.ceil(sizes.num_eval / (images['eval'] * num_devices))
        seconds += evaluations * steps * bounds['eval'].seconds
    return seconds * num_devices / 3600


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_string('topology', None, 'Devices: v5e:4x4, v4:2x2x2, v6e:2x4, h100x8, a100, l4.')
    flags.mark_flag_as_required('topology')
    flags.DEFINE_bool('search', True, 'Find the largest batch that fits; compiles a few times.')
    flags.DEFINE_enum('format', FORMATS[0], FORMATS, 'How to print.')
    flags.DEFINE_string('out', None, 'JSON file for all counts.')
    flags.DEFINE_float(
        'decode_rate',
        None,
        'Images/s that one core decodes, as measured by ssanet input_doctor.',
        lower_bound=1e-3,
    )
    flags.DEFINE_integer(
        'num_classes', None, 'Classes, where the dataset is not prepared here.', lower_bound=1
    )
    flags.DEFINE_integer(
        'num_train_examples', None, 'Training images, where they cannot be counted.', lower_bound=1
    )
    flags.DEFINE_integer(
        'num_eval_examples', None, 'Evaluation images, where they cannot be counted.', lower_bound=1
    )


if __name__ == '__main__':
    cli.run(main, define_flags)
