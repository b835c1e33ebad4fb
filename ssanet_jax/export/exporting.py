"""A run written in some format, loaded back and compared, or not written at all."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssanet_jax.errors import ConfigError
from ssanet_jax.export import (
    description,
    onnx_file,
    parity,
    program,
    saved_model,
    stablehlo,
    weights_file,
)
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.training.atomic_io import check_room


class Format(NamedTuple):
    """How a format is written and loaded, and what it promises.

    Attributes:
      write: a program and what describes it into a folder.
      load: what was written, by the library of its consumers.
      bound: of the relative difference of logits, on CPU.
      packages: that both need.
      weights_only: what is applied to images is not written.
    """

    write: Callable[[program.Program, Path, Mapping[str, Any]], None]
    load: Callable[[Path], parity.Loaded]
    bound: float
    packages: tuple[str, ...]
    weights_only: bool = False


FORMATS = {
    'stablehlo': Format(stablehlo.write, stablehlo.load, 1e-5, ('jax', 'flatbuffers')),
    'saved_model': Format(saved_model.write, saved_model.load, 1e-5, ('jax', 'tensorflow')),
    'onnx': Format(onnx_file.write, onnx_file.load, 1e-4, ('jax', 'onnx', 'onnxruntime')),
    weights_file.FORMAT: Format(
        weights_file.write, weights_file.load, 0.0, ('jax', 'safetensors'), weights_only=True
    ),
}


def require_packages(form: str) -> None:
    """Raises ConfigError unless what a format needs is installed."""
    missing = [p for p in FORMATS[form].packages if importlib.util.find_spec(p) is None]
    if missing:
        raise ConfigError(
            f'Exporting as {form} needs {" and ".join(missing)}, not installed here: '
            'pip install .[export]'
        )


def export_run(
    run: TrainedModel, form: str, out: Path, images: np.ndarray, *, preprocessing: bool = True
) -> dict[str, Any]:
    """Writes a folder with the network of `run` and config.json, once it was loaded and compared.

    Args:
      run: from `ssanet_jax.load_trained`.
      form: one of `FORMATS`.
      out: the folder, which does not exist yet.
      images: to compare on, uint8 [m, size, size, 3].
      preprocessing: whether the network takes such images, or float32 ones that are normalised.

    Returns:
      What config.json says; `parity` in it is how far logits are from those of the checkpoint.

    Raises:
      ParityError: they are too far; the folder is left as OUT.failed.
      ConfigError: a package is missing, or the format cannot express what is asked for.
      OSError: it cannot be written.
    """
    require_packages(form)
    fmt = FORMATS[form]
    if fmt.weights_only and not preprocessing:
        raise ConfigError(f'What is written as {form} is the same without preprocessing; leave it.')
    make = program.as_trained if fmt.weights_only else program.exported
    ours = make(run, preprocessing=preprocessing)
    described = description.describe(run, ours, form, fmt.packages)
    check_room(
        epath.Path(out.parent), 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(ours.variables))
    )
    unfinished = out.with_name(f'{out.name}.{os.getpid()}.partial')
    unfinished.mkdir()
    try:
        fmt.write(ours, unfinished, described)
        description.write(unfinished, described)
        described['parity'] = _compare(run, fmt, unfinished, images, preprocessing)
        description.write(unfinished, described)
        unfinished.rename(out)
    except parity.ParityError as error:
        failed = out.with_name(f'{out.name}.failed')
        unfinished.rename(failed)
        raise parity.ParityError(
            f'{out} was not written. {error} What was is left as {failed}.'
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return described


def _compare(
    run: TrainedModel, fmt: Format, folder: Path, images: np.ndarray, preprocessing: bool
) -> dict[str, Any]:
    """What config.json says of it."""
    make = program.as_trained if fmt.weights_only else program.reference
    expected = make(run, preprocessing=preprocessing)
    given = images if preprocessing else np.asarray(run.preprocess(jnp.asarray(images)))
    try:
        loaded = fmt.load(folder)
        loaded(given[:1])
    except Exception as error:  # whatever the consumer's library raises
        reason = ' '.join(str(error).split())[:300]
        raise parity.ParityError(f'It cannot be loaded back: {reason}.') from error
    found = parity.check(loaded, expected, given, bound=fmt.bound)
    result = {'images': len(images), 'bound': fmt.bound, 'differences': found}
    if run.model.dtype == jnp.bfloat16 and not fmt.weights_only:
        trained = program.as_trained(run, preprocessing=preprocessing)
        logits = [jax.jit(p)(given)['logits'] for p in (trained, expected)]
        result['bfloat16'] = parity.relative_difference(*logits)
    return result
