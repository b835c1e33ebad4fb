r"""Writes the network of a run for others, loads it back, and compares it with the checkpoint.

    python -m ssanet_jax.tools.export --workdir=runs/digits --format=stablehlo --out=digits_hlo
    python -m ssanet_jax.tools.export --workdir=runs/digits --format=saved_model --out=digits_tf
    python -m ssanet_jax.tools.export --workdir=runs/digits --format=onnx --out=digits_onnx
    python -m ssanet_jax.tools.export --workdir=runs/digits --format=safetensors --out=digits_st
    python -m ssanet_jax.tools.export --workdir=/data/runs/ssa50 --checkpoint=latest \
        --format=onnx --nopreprocessing --out=ssa50_onnx photographs/

OUT becomes a folder with the network and a config.json that says what goes in and comes out, with
the names of the classes. Images, in batches of 1 and 7, go through what was loaded back and
through the checkpoint's network; logits that differ too much end the command with exit code 1, and
the folder is then OUT.failed. The images are the first 7 of the run's evaluation split, or those
named at the end: files, folders, globs, or - for standard input. docs/export.md says how each
format is loaded.
"""

from pathlib import Path
from typing import Any

from absl import flags
from etils import epath

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli, input_files

FLAGS = flags.FLAGS

FORMATS = ('stablehlo', 'saved_model', 'onnx', 'safetensors')


def define_flags() -> None:
    """Not at import: flags of several commands would collide."""
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_enum('format', None, FORMATS, 'What to write.', required=True)
    flags.DEFINE_string('out', None, 'The folder to write, which must not exist.', required=True)
    flags.DEFINE_bool(
        'preprocessing', True, 'Take uint8 images, not float32 ones that are normalised.'
    )


def main(argv: list[str]) -> None:
    cli.use_cpu()  # What is promised was measured there.
    out = Path(FLAGS.out)
    _check_out(out)
    if FLAGS.format == 'safetensors' and FLAGS['preprocessing'].present:
        raise ConfigError('--preprocessing has no effect with --format=safetensors; leave it out.')
    files = input_files.find(argv[1:]) if argv[1:] else None
    from ssanet_jax.trained.load import load_trained
    from ssanet_jax.training.workdir import saved_config

    saved_config(epath.Path(FLAGS.workdir))  # raises where there is no run
    from ssanet_jax import export

    export.require_packages(FLAGS.format)
    cli.start_tensorflow()
    run = load_trained(FLAGS.workdir, FLAGS.checkpoint)
    images = export.file_images(run, files) if files is not None else export.evaluation_images(run)
    try:
        described = export.export_run(
            run, FLAGS.format, out, images, preprocessing=FLAGS.preprocessing
        )
    except OSError as error:
        raise ConfigError(f'--out={out} cannot be written: {error}.') from error
    _report(described, out)


def _check_out(out: Path) -> None:
    if out.exists():
        raise ConfigError(f'--out={out} exists; name a folder that does not.')
    failed = out.with_name(f'{out.name}.failed')
    if failed.exists():
        raise ConfigError(f'{failed} is there, of an export that failed; remove it first.')
    if not out.parent.is_dir():
        raise ConfigError(f'--out={out}: {out.parent} is no folder; make it first.')


def _report(described: dict[str, Any], out: Path) -> None:
    parity = described['parity']
    print(f'{out}: {described["network"]}, step {described["step"]}, as {described["format"]}')
    print(f'Loaded back and compared with the checkpoint on {parity["images"]} images:')
    for size, difference in parity['differences'].items():
        found = f'differ by {difference:.1e} of the largest, {parity["bound"]:.0e} allowed'
        print(f'  batches of {size}: logits {found if parity["bound"] else "are equal"}')
    if 'bfloat16' in parity:
        print(f'  as trained, in bfloat16, they differ by {parity["bfloat16"]:.1e}')


if __name__ == '__main__':
    define_flags()
    cli.run(main)
