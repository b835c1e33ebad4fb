r"""Compiles training steps for TPUs and GPUs without having them, and records their cost.

    pip install libtpu 'jax[cuda13]'
    python benchmarks/targets.py --out=benchmarks/results/targets.json

A program is a network with the form of its tail, `ssa_resnet50:auto`, or `:flax` for the baseline
of flax's own layers; one training step in bfloat16, with SGD, on one device, at 224 pixels or, for
networks with CIFAR's stem, 32. `ssa_resnet50:auto:evaluation` is a forward pass. Results in the
file from the same versions are kept, so an interrupted run can be resumed; after an update, those
of the versions before are printed beside the new ones. Each program is compiled in a separate
process, since a compiler may abort. The matrix takes hours on two cores: by default, all networks
with SSA and all attention blocks in ResNet-50 for v5e and h100, and the ImageNet networks for the
others.

    python benchmarks/targets.py --targets=h100 --programs=ssa_resnet50:auto \
        --flags=--xla_gpu_enable_triton_gemm=false --out=benchmarks/results/target_flags.json

compiles with flags of the compiler, whose results are kept beside those without.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from common import commit, write

from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.targets import DEVICE_TYPES, compile_environment
from ssanet_jax.tools.compile_step import failure
from ssanet_jax.tools.preflight import check_compiler

# The devices that the comparisons of forms are made for, and images per step.
COMPARED = {'v5e': 128, 'h100': 256}
IMAGENET = ('ssa_resnet50', 'resnet50', 'se_resnet50')
FORMS = [f'{network}:{form}' for form in ('auto', 'flax', 'plain') for network in IMAGENET]
FORMS += [f'{program}:evaluation' for program in FORMS]
ALL = [f'{kind}_resnet50:auto' for kind in ATTENTION] + [f'ssa_{name}:auto' for name in NETWORKS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--targets', nargs='+', default=list(DEVICE_TYPES), choices=DEVICE_TYPES)
    parser.add_argument('--programs', nargs='+', metavar='NETWORK:FORM', help='default: the matrix')
    parser.add_argument('--flags', default='', help='of the compiler, separated by spaces')
    parser.add_argument('--out', type=Path, help='JSON file to write or complete')
    parser.add_argument('--one', nargs=2, metavar=('TARGET', 'PROGRAM'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(count(*arguments.one)))
        return
    code = commit()
    result: dict[str, Any] = {'versions': {}, 'programs': {}, 'before': {}}
    if arguments.out and arguments.out.exists():
        result |= json.loads(arguments.out.read_text())
    for name, program in matrix(arguments.targets, arguments.programs):
        check_compiler(DEVICE_TYPES[name])
        compiler = DEVICE_TYPES[name].compiler.replace('_', '-')
        versions = {p: metadata.version(p) for p in ('jax', 'flax', compiler)}
        if result['versions'].get(name) != versions:
            result['before'][name] = result['programs'].get(name)
            result['versions'][name], result['programs'][name] = versions, {}
        done = result['programs'][name]
        key = f'{program} {arguments.flags}'.strip()
        if 'error' in done.get(key, {'error': 'not compiled'}):
            counted = compile_apart(__file__, name, program, flags=arguments.flags)
            done[key] = counted | {'commit': code}
            before = (result['before'].get(name) or {}).get(key, {})
            print(name, key, counted, ratios(counted, before), flush=True)
            if arguments.out:
                write(arguments.out, result)


def ratios(counted: dict[str, Any], before: dict[str, Any]) -> str:
    """The counts relative to those with other versions of the compiler, if there are any."""
    text = ', '.join(
        f'{name} {counted[name] / before[name]:.3f}'
        for name in ('cycles', 'bytes', 'temporaries')
        if counted.get(name) and before.get(name)
    )
    return text and f'relative to the versions before: {text}'


def matrix(targets: list[str], programs: list[str] | None) -> list[tuple[str, str]]:
    """(target, program): comparisons first, then the ImageNet networks, then all others."""
    if programs:
        return [(target, program) for program in programs for target in targets]
    compared = [target for target in targets if target in COMPARED]
    pairs = [(target, program) for program in FORMS for target in compared]
    pairs += [(target, f'{network}:auto') for target in targets for network in IMAGENET]
    pairs += [(target, program) for program in ALL for target in compared]
    return list(dict.fromkeys(pairs))


def compile_apart(script: str, target: str, *words: str, flags: str = '') -> dict[str, Any]:
    """Runs `script --one TARGET WORDS` in a new process that can compile for the target.

    Returns:
      The JSON of its last line; {'error': why} where it fails.
    """
    command = [sys.executable, script, '--one', target, *words]
    environment = os.environ | compile_environment()
    if target in DEVICE_TYPES:
        tpu = DEVICE_TYPES[target].compiler == 'libtpu'
        variable = 'LIBTPU_INIT_ARGS' if tpu else 'XLA_FLAGS'
        environment[variable] = f'{environment.get(variable, "")} {flags}'.strip()
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        return {'error': str(failure(run.returncode, run.stderr))}
    return json.loads(run.stdout.splitlines()[-1])


def count(target: str, program: str) -> dict[str, Any]:
    """The counts of a program, compiled in this process."""
    step, arguments = network_step(program, COMPARED.get(target, 128))
    return counts(compile_for(target, step, arguments))


def compile_for(target: str, function: Any, arguments: Any) -> Any:
    """Compiles a jitted function of shapes for one device of the target, or for the CPU here."""
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from ssanet_jax.training.checkpoints.trees import abstract

    if target == 'cpu':
        return function.lower(*arguments).compile()
    kind = DEVICE_TYPES[target]
    topology = min(kind.topologies, key=lambda name: kind.topologies[name])
    mesh = Mesh(np.array(kind.devices(topology)[:1]), ('data',))
    sharding = NamedSharding(mesh, PartitionSpec())
    return function.lower(*abstract(arguments, sharding)).compile()


def counts(compiled: Any) -> dict[str, Any]:
    """Bytes, temporaries and, where the compiler estimates them, cycles of a compiled program."""
    from ssanet_jax.analysis.hlo import operations
    from ssanet_jax.analysis.schedule import estimated_cycles

    # The TPU's compiler counts what stays in fast memory apart; the GPU's counts nothing.
    accessed = (compiled.cost_analysis() or {}).get('bytes accessed')
    if accessed is None:
        accessed = sum(operation.bytes_accessed for operation in operations(compiled))
    return {
        'cycles': estimated_cycles(compiled.as_text()) or 0,
        'bytes': accessed,
        'temporaries': compiled.memory_analysis().temp_size_in_bytes,
    }


def network_step(program: str, batch_size: int) -> tuple[Any, tuple[Any, ...]]:
    """A training step or a forward pass, jitted, and the shapes of its arguments."""
    import jax
    import jax.numpy as jnp
    import optax

    model = network(program)
    size = 32 if getattr(model, 'stem', None) == 'cifar' else 224
    images = jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    tx = optax.sgd(0.1, momentum=0.9)

    def evaluation(variables: Any, images: jax.Array) -> jax.Array:
        return model.apply(variables, images, train=False)

    def training(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, batch_stats, opt_state = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {'params': params, 'batch_stats': batch_stats}
            logits, updates = model.apply(
                variables,
                images,
                train=True,
                mutable=['batch_stats'],
                rngs={'dropout': jax.random.key(0)},
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updates['batch_stats']

        (value, new_stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), new_stats, opt_state), value

    few = jnp.zeros((2, size, size, 3), jnp.bfloat16)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), few, train=False))
    if program.endswith(':evaluation'):
        return jax.jit(evaluation), (variables, images)
    opt_state = jax.eval_shape(tx.init, variables['params'])
    state = variables['params'], variables['batch_stats'], opt_state
    return jax.jit(training, donate_argnums=0), (state, images, labels)


def network(program: str) -> Any:
    import jax.numpy as jnp
    from flax_resnet import SE, SSA, ResNet50

    from ssanet_jax import create_model

    name, form, *_ = program.split(':')
    if form == 'flax':
        attention = {'resnet50': None, 'se_resnet50': SE, 'ssa_resnet50': SSA}[name]
        return ResNet50(attention)
    model = create_model(name, num_classes=1000, dtype=jnp.bfloat16)
    return model.clone(tail=form) if hasattr(model, 'tail') else model


if __name__ == '__main__':
    main()
