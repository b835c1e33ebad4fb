"""Tables printed for a terminal, as Markdown or as JSON."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ssanet_jax.output import printable

TableFormat = Literal['table', 'markdown', 'json']
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      name: heading, and key in JSON.
      text: formats a value that is not None.
      left: whether values are aligned left, as for words, rather than right, as for numbers.
    """

    name: str
    text: Callable[[Any], str] = str
    left: bool = False

    def cell(self, value: Any) -> str:
        """The printed value; '-' for None."""
        return '-' if value is None else printable(self.text(value))


class Table(NamedTuple):
    """Rows of one value per column, and notes to print below them."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()


def thousands(value: int) -> str:
    """Formats 25557032 as '25,557,032'."""
    return f'{value:,}'


def si_format(value: float) -> str:
    """Formats with four digits and a unit: '2.547 M', '15.47 G'."""
    for size, unit in ((1e6, 'M'), (1e9, 'G'), (1e12, 'T')):
        text = f'{value / size:.4g} {unit}'
        if value < 999.95 * size:
            break
    return text


def csv_cell(value: object) -> object:
    r"""A value for a CSV file; text that a spreadsheet would take for a formula gets a quote.

    >>> csv_cell('=1+1'), csv_cell('cat'), csv_cell(-0.5)
    ("'=1+1", 'cat', -0.5)
    """
    if not isinstance(value, str):
        return value
    quote = "'" if value.lstrip().startswith(('=', '+', '-', '@')) else ''
    return quote + printable(value)


def show(tables: Sequence[Table], style: TableFormat) -> None:
    """Prints tables to stdout; as JSON they are one list of unformatted values."""
    if style == 'json':
        print(json.dumps([_data(table) for table in tables], indent=2))
        return
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 240)  # a file gets tables at full width
    for number, table in enumerate(tables):
        if number:
            print()
        if style == 'markdown':
            print(markdown(table))
        else:
            console.print(_rich(table))
            for note in table.notes:
                console.print(Text(printable(f'* {note}')), soft_wrap=not terminal)


def _data(table: Table) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    return {
        'title': table.title,
        'rows': [dict(zip(names, row, strict=True)) for row in table.rows],
        'notes': list(table.notes),
    }


def _cells(table: Table) -> list[list[str]]:
    return [
        [column.cell(value) for column, value in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]


def markdown(table: Table) -> str:
    """Formats as Markdown: title, table and a list of the notes."""
    lines = [
        [column.name for column in table.columns],
        ['---' if column.left else '---:' for column in table.columns],
        *([cell.replace('|', '\\|') for cell in cells] for cells in _cells(table)),
    ]
    parts = [
        f'**{printable(table.title)}**',
        '\n'.join(f'| {" | ".join(line)} |' for line in lines),
        '\n'.join(f'* {printable(note)}' for note in table.notes),
    ]
    return '\n\n'.join(part for part in parts if part)


def _rich(table: Table) -> RichTable:
    rich = RichTable(title=Text(printable(table.title)), title_justify='left')
    for column in table.columns:
        rich.add_column(Text(column.name), justify='left' if column.left else 'right')
    for cells in _cells(table):
        rich.add_row(*map(Text, cells))
    return rich
