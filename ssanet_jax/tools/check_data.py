r"""Reads every image of a recipe's dataset: classes, sizes, bad files, duplicates, leakage.

    ssanet check_data --config=folder \
        --config.dataset.data_dir=photos --out=photos.html

Works on folders of images and on prepared datasets, on all cores. The exit code is 1 if an image
cannot be used.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from ssanet_jax import data, runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.tables import FORMATS, Table, show
from ssanet_jax.tools import cli

if TYPE_CHECKING:
    from ssanet_jax.data.checks.scan import Scan

FLAGS = flags.FLAGS


class DataCheck(NamedTuple):
    """What was found: sentences, the most important first, and tables."""

    title: str
    findings: list[str]
    classes: Table
    sizes: Table
    bad: Table
    duplicates: Table
    left_out: Table

    @property
    def tables(self) -> list[Table]:
        return [self.duplicates, self.bad, self.left_out, self.sizes, self.classes]

    def tiles(self) -> list[tuple[str, str]]:
        *_, images = self.classes.rows[-1:]
        counts = {
            'classes': len(self.classes.rows) - 1,
            'images': sum(images[1:]),
            'cannot be used': len(self.bad.rows),
            'duplicated': len(self.duplicates.rows),
        }
        return [(name, f'{number:,}') for name, number in counts.items()]


def main() -> None:
    config = cli.recipe()
    if FLAGS.out and not Path(FLAGS.out).parent.is_dir():
        raise ConfigError(f'--out={FLAGS.out} is in no existing folder; choose another.')
    runtime.use_cpu()  # Images need no accelerator.
    data.dataset_info(config)  # refuses data without labels
    found = check(config.dataset)
    if FLAGS.out:
        from ssanet_jax.report.data_page import write_data_page

        tables = found.tables[::-1]
        write_data_page(Path(FLAGS.out), found.title, found.findings, found.tiles(), tables)
    *tables, last = found.tables
    everything = FLAGS.format == 'json'  # always the same tables
    tables = [table for table in tables if table.rows or everything]
    show([*tables, last._replace(notes=found.findings)], FLAGS.format)
    sys.exit(1 if found.bad.rows else 0)


def check(dataset: ConfigDict) -> DataCheck:
    """Decodes both splits of `config.dataset`; raises ConfigError as `data.dataset_info`."""
    from ssanet_jax.data.builders import open_builder
    from ssanet_jax.data.checks import findings
    from ssanet_jax.data.datasets.image_folder import ImageFolder

    builder = open_builder(dataset)
    classes = builder.info.features['label'].names
    scans = _scan(dataset)
    bad = findings.bad_table(classes, scans.values())
    duplicates = findings.duplicate_table(classes, scans.values())
    counts = [
        findings.class_counts(scans[split], len(classes))
        for split in (dataset.train_split, dataset.eval_split)
    ]
    folder = isinstance(builder, ImageFolder)
    left_out = builder.left_out if folder else {}
    return DataCheck(
        f'Images in {dataset.data_dir}' if folder else builder.info.full_name,
        [
            *findings.image_warnings(bad, duplicates),
            *findings.count_warnings(classes, *counts),
            *findings.left_out_sentence(left_out),
            *(builder.notes if folder else []),
        ],
        findings.class_table(classes, scans),
        findings.size_table(scans.values()),
        bad,
        duplicates,
        findings.left_out_table(left_out),
    )


def _scan(dataset: ConfigDict) -> 'dict[str, Scan]':
    from ssanet_jax.data.builders import open_builder, split_size
    from ssanet_jax.data.checks.scan import scan_split

    splits = dict.fromkeys([dataset.train_split, dataset.eval_split])
    total = sum(split_size(open_builder(dataset), split) for split in splits)
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task('reading images', total=total)
        return {
            split: scan_split(dataset, split, lambda images: bar.advance(task, images))
            for split in splits
        }


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_enum('format', 'table', FORMATS, 'How to print.')
    flags.DEFINE_string('out', None, 'HTML page to write as well.')


if __name__ == '__main__':
    cli.run(main, define_flags)
