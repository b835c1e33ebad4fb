"""Writes a page about a dataset: what `ssanet check_data` found."""

from collections.abc import Sequence
from pathlib import Path

from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.errors import ConfigError
from ssanet_jax.report.page import load_template
from ssanet_jax.tables import Table


def write_data_page(
    path: Path,
    title: str,
    findings: Sequence[str],
    tiles: Sequence[tuple[str, str]],
    tables: Sequence[Table],
) -> None:
    """Writes a self-contained page; raises ConfigError if it cannot be written.

    Args:
      path: of the page.
      title: its heading.
      findings: sentences, the most important first.
      tiles: name and value of the main numbers.
      tables: below them; those without rows are omitted.
    """
    text = load_template('data_check.html').render(
        title=title,
        findings=findings,
        tiles=tiles,
        tables=[table for table in tables if table.rows],
    )
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding='utf-8')
    except OSError as error:
        raise ConfigError(f'{path} cannot be written: {error.strerror}; choose another.') from error
