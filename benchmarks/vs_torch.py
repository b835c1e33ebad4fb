r"""Times training steps against PyTorch's on the same machine in the same run.

    pip install -e .[train,benchmark]
    python benchmarks/vs_torch.py --out=benchmarks/results/vs_torch.json
    pip install -e .[train,benchmark,cuda]   # on a GPU
    python benchmarks/vs_torch.py --batch_size=128 --out=... --contenders \
        torch/resnet50/bfloat16 jax/resnet50/bfloat16 jax/ssa_resnet50/bfloat16

A contender is FRAMEWORK/MODEL/DTYPE: jax, torch (eager, channels_last), compile (torch.compile,
channels_last), timm or timm-compile; bfloat16 is AMP in PyTorch. Each is a separate
process with the same number of threads; they alternate in rounds and wait in between. The first
contender is the baseline of the ratios. All are in memory at once, on one device. Images are
already there; every step is forward, backward and SGD with momentum and weight decay. In JAX it is
the trainer's, which also normalizes uint8 images, counts metrics and checks the gradients.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine, register_torchvision_operators, spread, write

# Starts a step, waits until all are done, and the name of the device.
Contender = tuple[Callable[[], None], Callable[[], object], str]


def contenders(dtypes: list[str]) -> list[str]:
    ours = ('resnet50', 'se_resnet50', 'ssa_resnet50')
    pairs = [(framework, model) for framework in ('torch', 'compile', 'jax') for model in ours]
    pairs += [('timm', 'resnet50'), ('timm', 'seresnet50')]
    return [f'{framework}/{model}/{dtype}' for dtype in dtypes for framework, model in pairs]


def jax_step(model: str, dtype: str, batch_size: int, size: int) -> Contender:
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType

    from ssanet_jax.config import base
    from ssanet_jax.training import parallel, trainer_setup

    config = base()
    config.model.name, config.dtype, config.batch_size = model, dtype, batch_size
    config.dataset.image_size = size
    mesh = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    setup = trainer_setup.build(config, num_classes=1000, num_train_examples=1_281_167, mesh=mesh)
    carried = [setup.init(), setup.zero_metrics()]
    host = {
        'image': jax.device_get(
            jax.random.bits(jax.random.key(0), (batch_size, size, size, 3), jnp.uint8)
        ),
        'label': jax.device_get(jnp.arange(batch_size) % 1000),
        'mask': jax.device_get(jnp.ones(batch_size, bool)),
    }
    (batch,) = parallel.to_devices([host], setup.mesh)

    def step() -> None:
        carried[:] = setup.train_step(carried[0], batch, carried[1])

    return step, lambda: jax.block_until_ready(carried), jax.devices()[0].device_kind


def torch_step(framework: str, model: str, dtype: str, batch_size: int, size: int) -> Contender:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True  # XLA does this by default on a GPU, ...
    torch.set_float32_matmul_precision('high')  # ... and uses TF32.
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    network = timm_model(model) if framework.startswith('timm') else own_model(model)
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    run = torch.compile(network) if framework.endswith('compile') else network
    images = torch.rand(batch_size, 3, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device) % 1000

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16'):
            loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()

    def finish() -> None:
        if device == 'cuda':
            torch.cuda.synchronize()

    return step, finish, torch.cuda.get_device_name() if device == 'cuda' else device


def own_model(model: str) -> Any:
    from torch_resnet import resnet50

    network = resnet50(model)
    parameters = sum(p.numel() for p in network.parameters())
    published = {'resnet50': 25_557_032, 'ssa_resnet50': 25_557_064, 'se_resnet50': 28_088_024}
    assert parameters == published[model], parameters
    return network


def timm_model(model: str) -> Any:
    register_torchvision_operators()
    import timm

    return timm.create_model(model)


def work(contender: str, batch_size: int, size: int) -> None:
    """Runs a contender: reads numbers of steps, one per line, and prints the seconds they take."""
    framework, model, dtype = contender.split('/')
    if framework == 'jax':
        step, finish, device = jax_step(model, dtype, batch_size, size)
    else:
        step, finish, device = torch_step(framework, model, dtype, batch_size, size)
    began = time.perf_counter()
    step()
    finish()
    print(json.dumps({'first': time.perf_counter() - began, 'device': device}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        finish()
        print(json.dumps({'seconds': (time.perf_counter() - began) / int(line)}), flush=True)


class Worker:
    """The process of a contender."""

    def __init__(self, contender: str, arguments: argparse.Namespace) -> None:
        self.name = contender
        python = sys.executable if contender.startswith('jax') else arguments.torch_python
        sizes = [f'--batch_size={arguments.batch_size}', f'--image_size={arguments.image_size}']
        self.process = subprocess.Popen(
            [python, __file__, f'--work={contender}', *sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Otherwise the first contender in JAX takes three quarters of a GPU's memory.
            env=os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},
        )
        started = self._read()
        self.first, self.device = started['first'], started['device']
        self.seconds: list[float] = []

    def measure(self, repeats: int) -> float:
        assert self.process.stdin is not None
        print(repeats, file=self.process.stdin, flush=True)
        return self._read()['seconds']

    def result(self, baseline: 'Worker', batch_size: int) -> dict[str, Any]:
        ratios = [b / s for s, b in zip(self.seconds, baseline.seconds, strict=True)]
        speeds = [batch_size / s for s in self.seconds]
        return {
            'contender': self.name,
            'device': self.device,
            'first_step_seconds': self.first,
            'images_per_second': {**spread(speeds), 'rounds': speeds},
            'speed_ratio': spread(ratios),
        }

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{'):
                return json.loads(line)
        raise RuntimeError(f'{self.name} stopped; its error is above.')


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--contenders', nargs='+', metavar='FRAMEWORK/MODEL/DTYPE')
    parser.add_argument('--dtypes', nargs='+', default=['float32'], help='of the default list')
    parser.add_argument('--batch_size', type=int, default=32)
    parser.add_argument('--image_size', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=2.0, help='least length of a measurement')
    parser.add_argument('--torch_python', default=sys.executable, help='Python that has torch')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    parser.add_argument('--work', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.work:
        work(arguments.work, arguments.batch_size, arguments.image_size)
        return
    workers, missing = [], []
    for name in arguments.contenders or contenders(arguments.dtypes):
        try:
            workers.append(Worker(name, arguments))
            print(f'{name}: first step after {workers[-1].first:.1f} s', flush=True)
        except RuntimeError as error:
            if not workers:
                raise SystemExit(f'The baseline did not start: {error}') from error
            print(error, file=sys.stderr)
            missing.append(name)
    if len({worker.device == 'cpu' for worker in workers}) > 1:
        devices = ', '.join(f'{worker.name} on {worker.device}' for worker in workers)
        raise SystemExit(f'All contenders must run on one device: {devices}.')
    warm_up = [worker.measure(1) for worker in workers]
    repeats = max(1, round(arguments.seconds / min(warm_up)))
    for number in range(arguments.rounds):
        for worker in workers:
            worker.seconds.append(worker.measure(repeats))
        print(f'round {number + 1} of {arguments.rounds}', flush=True)

    results = [worker.result(workers[0], arguments.batch_size) for worker in workers]
    for worker in workers:
        worker.process.terminate()
    show(workers[0].name, results)
    if arguments.out:
        asked = {k: str(v) for k, v in vars(arguments).items() if k not in ('out', 'work')}
        result = {'machine': machine('jax', 'jaxlib', 'flax'), 'arguments': asked}
        result |= {'torch': torch_versions(arguments.torch_python), 'could_not_run': missing}
        write(arguments.out, {**result, 'results': results})


def show(baseline: str, results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f'Training, ratios to {baseline}', title_justify='left')
    for column in ('contender', 'images/s', 'lowest', 'highest', 'ratio', 'first step, s'):
        table.add_column(column, justify='left' if column == 'contender' else 'right')
    for r in results:
        speed = r['images_per_second']
        values = (speed['median'], speed['lowest'], speed['highest'], r['speed_ratio']['median'])
        row = [*(f'{v:,.3g}' for v in values), f'{r["first_step_seconds"]:.1f}']
        table.add_row(r['contender'], *row)
    Console(width=120).print(table)


def torch_versions(python: str) -> dict[str, str]:
    """Package versions of the other interpreter."""
    program = (
        'import json; from importlib import metadata; '
        'print(json.dumps({n: metadata.version(n) for n in ("torch", "timm")}))'
    )
    done = subprocess.run([python, '-c', program], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}


if __name__ == '__main__':
    main()
