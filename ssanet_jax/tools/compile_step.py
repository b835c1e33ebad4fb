"""Compiles one step of a config for devices that are not here, in a process of its own.

A compiler that aborts ends only that process. `compile_apart` starts it; as a module this file is
that process: it reads a `Request` and prints the result of `compile_apart`, both as JSON.
"""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import AxisType
from ml_collections import ConfigDict

from ssanet_jax.analysis.jaxpr_macs import least_macs
from ssanet_jax.analysis.schedule import Collective, collectives, estimated_cycles, memory_traffic
from ssanet_jax.config import with_defaults
from ssanet_jax.errors import ConfigError, RunError, one_line
from ssanet_jax.targets import compile_environment, find_topology
from ssanet_jax.targets.device_type import DeviceType
from ssanet_jax.training import parallel, trainer_setup
from ssanet_jax.training.checkpoints.trees import abstract
from ssanet_jax.training.steps import DATA_AXIS

Step = Literal['train', 'eval']


class Request(NamedTuple):
    """What to compile.

    Attributes:
      config: of the run.
      topology: as `find_topology` takes it.
      step: 'train' or 'eval'.
      images: in the batch of one device.
      num_classes: of the dataset.
      num_train_examples: of the training split.
    """

    config: ConfigDict
    topology: str
    step: Step
    images: int
    num_classes: int
    num_train_examples: int


class StepCost(NamedTuple):
    """Counts of one compiled step on one device; memory in bytes.

    Attributes:
      arguments: parameters, statistics, optimizer state and batch.
      outputs: results that are not written over donated arguments.
      temporaries: activations and gradients.
      code: of the program.
      flops: of convolutions and matrix products, excluding products with padding.
      bytes_accessed: read and written by all operations, wherever the arrays are.
      traffic: least number of bytes between the device and its memory.
      cycles: that the compiler estimates, or None.
      collectives: between devices.
      compile_seconds: without tracing.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int
    flops: int
    bytes_accessed: int
    traffic: int
    cycles: int | None
    collectives: list[Collective]
    compile_seconds: float

    @property
    def memory(self) -> int:
        """Bytes that the device needs in all."""
        return self.arguments + self.outputs + self.temporaries + self.code


class TooLarge(NamedTuple):
    """The compiler's refusal of a program that exceeds the device's memory.

    Attributes:
      needed, available: bytes, or None where the compiler does not say.
    """

    needed: int | None
    available: int | None


def compile_apart(request: Request) -> StepCost | TooLarge:
    """Compiles in another process.

    Raises:
      ConfigError: the config does not fit the devices, or a previous process left its lock.
      RunError: the compiler fails or aborts; the message says why, in one line.
    """
    run = subprocess.run(
        [sys.executable, '-m', __name__],
        input=_encode(request),
        env=os.environ | compile_environment(),
        capture_output=True,
        check=False,
    )
    log = run.stderr.decode(errors='replace')
    if run.returncode:
        raise failure(run.returncode, log)
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    if 'config_error' in result:
        raise ConfigError(result['config_error'])
    if 'error' in result:
        raise failure(0, result['error'])
    if 'too_large' in result:
        return TooLarge(*result['too_large'])
    cost = StepCost(**result['cost'])
    return cost._replace(collectives=[Collective(*collective) for collective in cost.collectives])


def versions_of(kind: DeviceType) -> dict[str, str]:
    """Versions of what a compiled program depends on."""
    names = ('jax', 'flax', kind.compiler.replace('_', '-'))
    return {'python': platform.python_version(), **{n: metadata.version(n) for n in names}}


def _encode(request: Request) -> bytes:
    config = json.loads(request.config.to_json_best_effort())
    return json.dumps(request._replace(config=config)._asdict()).encode()


def _decode(text: bytes) -> Request:
    request = Request(**json.loads(text))
    return request._replace(config=with_defaults(request.config))


def failure(code: int, log: str) -> ConfigError | RunError:
    """The error, of one line, for a compiler that failed with this exit code and log."""
    if 'libtpu_lockfile' in log or 'libtpu multi-process lockfile' in log:
        return ConfigError(
            'Another process uses libtpu, or left its lock when it was killed; wait for it, or '
            'remove /tmp/libtpu_lockfile.'
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [x for x in lines if re.search(r'Check failed|\w*(Error|Exception): |^[A-Z_]+: ', x)]
    reason = one_line((telling or lines or ['the compiler gave no reason'])[-1])
    if code == -signal.SIGKILL:
        return RunError(
            "The compiler was killed, usually because this machine's memory is full; close other "
            'programs, or compile on a larger machine.'
        )
    if code < 0:
        return RunError(f'The compiler aborted ({signal.Signals(-code).name}): {reason}')
    return RunError(f'Does not compile: {reason}')


def too_large(message: str) -> TooLarge | None:
    """Reads the compiler's refusal 'Used 20.3G of 15.75G hbm'; None for other errors.

    >>> too_large('RESOURCE_EXHAUSTED: Ran out of memory. Used 20.00G of 15.75G hbm.')
    TooLarge(needed=21474836480, available=16911433728)
    """
    if 'RESOURCE_EXHAUSTED' not in message:
        return None
    units = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
    used = re.search(r'Used ([\d.]+)([KMGT]?)\w* of ([\d.]+)([KMGT]?)', message)
    if not used:
        return TooLarge(None, None)
    needed, unit, available, unit_available = used.groups()
    return TooLarge(int(float(needed) * units[unit]), int(float(available) * units[unit_available]))


def compile_step(request: Request) -> StepCost:
    """Compiles in this process, whose environment has to be that of `compile_environment`."""
    kind, name, num_devices = find_topology(request.topology)
    mesh = jax.make_mesh(
        (num_devices,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=kind.devices(name)
    )
    setup = trainer_setup.build(
        request.config,
        num_classes=request.num_classes,
        num_train_examples=request.num_train_examples,
        mesh=mesh,
    )
    step: Any = {'train': setup.train_step, 'eval': setup.eval_step}[request.step]
    size = {'train': setup.image_size, 'eval': setup.eval_size}[request.step]
    traced = step.trace(
        abstract(jax.eval_shape(setup.init), parallel.replicated(mesh)),
        parallel.batch_shapes(request.images * num_devices, size, mesh),
        abstract(jax.eval_shape(setup.zero_metrics), parallel.replicated(mesh)),
    )
    start = time.perf_counter()
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - start
    text, memory = compiled.as_text() or '', compiled.memory_analysis()
    counts: Any = compiled.cost_analysis() or {}
    return StepCost(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=2 * least_macs(traced.jaxpr.jaxpr),
        bytes_accessed=int(counts.get('bytes accessed', memory_traffic(text))),
        traffic=memory_traffic(text, kind.cache),
        cycles=estimated_cycles(text),
        collectives=collectives(text, num_devices),
        compile_seconds=seconds,
    )


def _answer(request: Request) -> dict[str, Any]:
    try:
        return {'cost': compile_step(request)._asdict()}
    except ConfigError as error:
        return {'config_error': str(error)}
    except Exception as error:  # whatever a compiler raises
        if refused := too_large(str(error)):
            return {'too_large': refused}
        return {'error': f'{type(error).__name__}: {one_line(error)}'}


if __name__ == '__main__':
    print(json.dumps(_answer(_decode(sys.stdin.buffer.read()))))
