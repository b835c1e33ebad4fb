"""Writes a trained network in a format, loads it back and verifies its logits."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssanet_jax import runtime
from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.export import parity, program
from ssanet_jax.pretrained.folder import sha256
from ssanet_jax.trained.sources import AnyModel
from ssanet_jax.training.storage.atomic_io import check_room

README = 'README.md'


class ExportFormat(NamedTuple):
    """A format, implemented by a module of this package with `write` and `load`.

    The module is imported on first use, since its libraries may not be installed.

    Attributes:
      module: name of the module.
      tolerance: largest accepted relative difference of logits; both are computed on the CPU.
      packages: required to write and to load it.
      weights_only: whether preprocessing is not part of it.
    """

    module: str
    tolerance: float
    packages: tuple[str, ...]
    weights_only: bool = False

    def write(self, exported: program.Program, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Writes `exported` to `folder`."""
        importlib.import_module(self.module).write(exported, folder, metadata)

    def load(self, folder: Path) -> parity.LoadedFn:
        """Loads it from `folder` with the library that its users would call."""
        return importlib.import_module(self.module).load(folder)


FORMATS = {
    'stablehlo': ExportFormat('ssanet_jax.export.stablehlo', 1e-5, ('jax', 'flatbuffers')),
    'saved_model': ExportFormat('ssanet_jax.export.saved_model', 1e-5, ('jax', 'tensorflow')),
    'onnx': ExportFormat('ssanet_jax.export.onnx', 1e-4, ('jax', 'onnx', 'onnxruntime')),
    'safetensors': ExportFormat(
        'ssanet_jax.export.safetensors', 0.0, ('jax', 'safetensors'), weights_only=True
    ),
}


def require_packages(format_name: str) -> None:
    """Raises ConfigError unless the format exists and the packages it needs are installed."""
    if format_name not in FORMATS:
        raise ConfigError(f'{format_name!r} is not a format; choose one of {", ".join(FORMATS)}.')
    packages = FORMATS[format_name].packages
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        extra = 'tensorflow' if 'tensorflow' in missing else 'export'
        raise ConfigError(
            f'Exporting to {format_name} needs {" and ".join(missing)}: '
            f"pip install 'ssanet-jax[{extra}]'"
        )


def export_trained(
    trained: AnyModel,
    format_name: str,
    out: Path,
    images: np.ndarray,
    *,
    preprocessing: bool = True,
    readme: str = '',
) -> program.Metadata:
    """Writes a folder with the network and config.json after verifying that it loads correctly.

    Args:
      trained: from `ssanet_jax.load`.
      format_name: a key of `FORMATS`.
      out: the folder to create; it must not exist.
      images: uint8 [M, size, size, 3] to compare logits on.
      preprocessing: whether the network takes uint8 images rather than normalized float32 ones.
      readme: text of README.md, which users may edit: config.json has no SHA-256 of it.

    Returns:
      The content of config.json; its `parity` holds the differences from the checkpoint's logits.

    Raises:
      ParityError: the logits differ by more than the tolerance; the folder is left as OUT.failed.
      ConfigError: a package is missing, or the format cannot express the network.
      OSError: the folder cannot be written.
    """
    require_packages(format_name)
    fmt = FORMATS[format_name]
    if fmt.weights_only and not preprocessing:
        raise ConfigError(
            f'{format_name} holds weights alone and has no preprocessing to omit; drop '
            '--nopreprocessing.'
        )
    make = program.as_trained if fmt.weights_only else program.folded
    exported = make(trained, preprocessing=preprocessing)
    metadata = program.describe(trained, exported, format_name, fmt.packages)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(exported.variables))
    cpu = runtime.cpu_device()
    check_room(epath.Path(out.parent), 2 * size)
    with atomic_write(out) as folder:
        folder.mkdir()
        fmt.write(exported, folder, metadata)
        metadata['sha256'] = {
            path.relative_to(folder).as_posix(): sha256(path)
            for path in sorted(folder.rglob('*'))
            if path.is_file()
        }
        program.write_metadata(folder, metadata)
        if readme:
            (folder / README).write_text(readme, encoding='utf-8')
        try:
            with jax.default_device(cpu):  # GPUs round float32 products to TF32
                metadata['parity'] = _compare(trained, fmt, folder, images, preprocessing)
        except parity.ParityError as error:
            failed = out.with_name(f'{out.name}.failed')
            folder.rename(failed)
            raise parity.ParityError(
                f'{out} was not written. {error} The result is kept as {failed}.'
            ) from error
        program.write_metadata(folder, metadata)
    return metadata


def _compare(
    trained: AnyModel,
    fmt: ExportFormat,
    folder: Path,
    images: np.ndarray,
    preprocessing: bool,
) -> dict[str, Any]:
    """The 'parity' entry of config.json."""
    make = program.as_trained if fmt.weights_only else program.reference
    expected = make(trained, preprocessing=preprocessing)
    inputs = images if preprocessing else np.asarray(trained.preprocess(jnp.asarray(images)))
    try:
        loaded = fmt.load(folder)
        loaded(inputs[:1])
    except Exception as error:  # of the format's own library
        raise parity.ParityError(f'It cannot be loaded back: {one_line(error)}.') from error
    differences = parity.check(loaded, expected, inputs, tolerance=fmt.tolerance)
    result = {'images': len(images), 'bound': fmt.tolerance, 'differences': differences}
    if trained.model.dtype == jnp.bfloat16 and not fmt.weights_only:
        in_bfloat16 = program.as_trained(trained, preprocessing=preprocessing)
        logits = [jax.jit(p)(inputs)['logits'] for p in (in_bfloat16, expected)]
        result['bfloat16'] = parity.relative_difference(*logits)
    return result
