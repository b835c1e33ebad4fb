r"""Writes a trained network as a folder for the Hugging Face Hub, and uploads it.

    ssanet publish --workdir=runs/digits --out=digits_hub
    ssanet publish --workdir=runs/digits --out=digits_hub --repo=USER/NAME
    ssanet publish --out=digits_hub --repo=USER/NAME --upload

OUT gets model.safetensors, config.json and README.md, a model card, which --upload sends to the
Hub together, after you have read and edited it. ssanet_jax.load reads the folder, and
hf://USER/NAME once it is uploaded. Needs the extras `hub` and `train`; --upload needs a
token: hf auth login.
"""

from pathlib import Path

from absl import flags

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.pretrained import hub
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of the run. Unset: only upload --out.')
    flags.DEFINE_string('checkpoint', 'best', 'With --workdir: best, latest or a step.')
    flags.DEFINE_string('out', None, 'The folder to write, which must not exist.', required=True)
    flags.DEFINE_string(
        'license',
        None,
        'Of the weights, by its name on the Hub. Unset: apache-2.0, if the run started from none.',
    )
    flags.DEFINE_string('repo', None, 'Repository on the Hub, USER/NAME.')
    flags.DEFINE_bool('upload', False, 'Upload the folder to --repo, which is created if missing.')
    flags.DEFINE_bool('private', False, 'With --upload: --repo is created private, or must be.')


def main() -> None:
    runtime.use_cpu()
    out = Path(FLAGS.out)
    _check_flags(out)
    if FLAGS.workdir:
        _write(out)
    if FLAGS.upload:
        from ssanet_jax.publish.upload import upload

        print(upload(out, FLAGS.repo, private=FLAGS.private))


def _check_flags(out: Path) -> None:
    hub.require_hub()
    if FLAGS.repo:
        hub.check_name(FLAGS.repo)
    if FLAGS.upload and not FLAGS.repo:
        raise ConfigError('--upload needs --repo=USER/NAME.')
    if FLAGS.private and not FLAGS.upload:
        raise ConfigError('--private has no effect without --upload; leave it out.')
    if not FLAGS.workdir and not FLAGS.upload:
        raise ConfigError('Give --workdir, the run to publish, or --upload, to upload --out.')
    for name in ('checkpoint', 'license'):
        if FLAGS[name].present and not FLAGS.workdir:
            raise ConfigError(f'--{name} has no effect without --workdir; leave it out.')
    if FLAGS.workdir and out.exists():
        raise ConfigError(f'--out={out} exists; choose a new folder, or leave out --workdir.')
    if FLAGS.workdir and not out.parent.is_dir():
        raise ConfigError(f'--out={out}: {out.parent} is not a folder; create it first.')


def _write(out: Path) -> None:
    from ssanet_jax.publish.folder import write_folder

    source = f'hf://{FLAGS.repo}' if FLAGS.repo else str(out)
    with cli.writing_out():
        write_folder(
            FLAGS.workdir,
            out,
            checkpoint=FLAGS.checkpoint,
            source=source,
            license_name=FLAGS.license,
        )
    print(f'{out}: loaded back, and its logits equal those of the checkpoint')


if __name__ == '__main__':
    cli.run(main, define_flags)
