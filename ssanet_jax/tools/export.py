r"""Exports a trained network, loads it back and verifies its logits.

    ssanet export --workdir=runs/digits --format=stablehlo --out=digits_hlo
    ssanet export --workdir=runs/digits --format=saved_model --out=digits_tf
    ssanet export --workdir=runs/digits --format=onnx --out=digits_onnx
    ssanet export --workdir=runs/digits --format=safetensors --out=digits_st
    ssanet export --workdir=/data/runs/ssa50 --checkpoint=latest \
        --format=onnx --nopreprocessing --out=ssa50_onnx photographs/

OUT becomes a folder with the network and a config.json that describes its input, outputs and
classes. The loaded network must reproduce the checkpoint's logits in batches of 1 and 7 images;
otherwise the command exits with 1 and leaves the folder as OUT.failed. It compares on the first 7
images of the run's evaluation split, or on the arguments: files, folders, globs, or - for standard
input. docs/export.md shows how to load each format.
"""

import re
from pathlib import Path
from typing import Any

from absl import flags

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli, input_files, sources

FLAGS = flags.FLAGS


def define_flags() -> None:
    from ssanet_jax.export import FORMATS

    sources.define_flags()
    flags.DEFINE_enum('format', None, list(FORMATS), 'Format to write.', required=True)
    flags.DEFINE_string('out', None, 'The folder to write, which must not exist.', required=True)
    flags.DEFINE_bool(
        'preprocessing', True, 'Take uint8 images rather than normalized float32 ones.'
    )


def main(arguments: list[str]) -> None:
    runtime.use_cpu()  # Parity bounds were measured there.
    out = Path(FLAGS.out)
    _check_out(out)
    if FLAGS.format == 'safetensors' and FLAGS['preprocessing'].present:
        raise ConfigError('--preprocessing has no effect with --format=safetensors; omit it.')
    files = input_files.find(arguments) if arguments else None
    from ssanet_jax import export
    from ssanet_jax.trained.load import TrainedModel

    export.require_packages(FLAGS.format)
    trained = sources.load()
    runtime.enable_compilation_cache()
    if files is not None:
        images = export.file_images(trained, files)
    elif isinstance(trained, TrainedModel):
        images = export.evaluation_images(trained)
    else:
        raise ConfigError('--model has no evaluation images; name images to compare logits on.')
    with cli.writing_out():
        metadata = export.export_trained(
            trained, FLAGS.format, out, images, preprocessing=FLAGS.preprocessing
        )
    _print_result(metadata, out)


def _check_out(out: Path) -> None:
    if out.exists():
        raise ConfigError(f'--out={out} exists; choose a new folder.')
    failed = out.with_name(f'{out.name}.failed')
    if failed.exists():
        raise ConfigError(f'{failed} is left from a failed export; remove it first.')
    if not out.parent.is_dir():
        raise ConfigError(f'--out={out}: {out.parent} is not a folder; create it first.')
    if FLAGS.format == 'saved_model' and re.search('[*?[\\\\\ud800-\udfff]', str(out.absolute())):
        raise ConfigError(
            f'--out={out} has *, ?, [, \\ or bytes that are not UTF-8, and TensorFlow could not '
            'load a SavedModel from it; choose another name.'
        )


def _print_result(metadata: dict[str, Any], out: Path) -> None:
    parity = metadata['parity']
    step = f', step {metadata["step"]}' if 'step' in metadata else ''
    print(f'{out}: {metadata["network"]}{step}, as {metadata["format"]}')
    print(f'Loaded back and compared with the checkpoint on {parity["images"]} images:')
    for size, difference in parity['differences'].items():
        result = f'differ by {difference:.1e} of the largest, {parity["bound"]:.0e} allowed'
        print(f'  batches of {size}: logits {result if parity["bound"] else "are equal"}')
    if 'bfloat16' in parity:
        print(f'  trained in bfloat16, whose logits differ by {parity["bfloat16"]:.1e}')


if __name__ == '__main__':
    cli.run(main, define_flags)
