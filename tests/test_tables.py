import io

import pytest
from rich.console import Console

from ssanet_jax.analysis.macs import Cost
from ssanet_jax.tables import FORMATS, Column, Table, csv_cell, markdown, show, si_format
from ssanet_jax.training.monitoring.console import Progress, cost_rows, print_table, say


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (2_547_000, '2.547 M'),
        (999_900_000, '999.9 M'),
        (999_960_000, '1 G'),
        (15_470_400_000, '15.47 G'),
        (123_456_000_000, '123.5 G'),
        (7_600_000_000_000, '7.6 T'),
    ],
)
def test_si_format_has_four_digits_and_no_exponent(value, text):
    assert si_format(value) == text


def test_the_table_of_a_run_has_no_exponent():
    """The cost of VGG-16 at 224 x 224."""
    cost = Cost(138_357_544, 15_470_264_320, 0, 0)
    assert cost_rows(cost, 224)['MACs'] == '15.47 G at 224x224'


NAMES = ['[red]x[/red]', 'a:100:b', '50 %s', 'a|b', '\x1b]0;title\x07', 'two\nlines']


@pytest.mark.parametrize('style', FORMATS)
def test_names_in_tables_are_printed_as_they_are_or_escaped(style, capsys):
    rows = [(name,) for name in NAMES]
    show([Table('\x1b[2J[b]title', [Column('name', left=True)], rows, ['\x07[i]note'])], style)
    printed = capsys.readouterr().out
    assert all(c.isprintable() for c in printed.replace('\n', ''))
    for text in ('[red]x[/red]', 'a:100:b', '50 %s', 'two\\nlines', '[b]title', '[i]note'):
        assert text in printed


def test_a_bar_in_a_name_does_not_divide_a_cell_of_markdown():
    table = Table('', [Column('name', left=True), Column('count')], [('a|b', 3)])
    assert markdown(table).splitlines()[-1] == r'| a\|b | 3 |'


@pytest.mark.parametrize('text', ['=1+1', '+1', '-1', '@A1', ' =1+1', '\t=1+1', '\r@A1'])
def test_text_that_begins_as_a_formula_gets_a_quote(text):
    assert csv_cell(text).startswith("'")
    assert csv_cell(f'a{text}').startswith('a')


def test_paths_and_metrics_are_printed_as_they_are_during_training():
    out = io.StringIO()
    console = Console(file=out, width=200)
    name = 'runs/[red]x[/red]/a:100:b/50 %s'
    say(console, f'Written to {name}.\x1b[2J')
    print_table(console, '[b] :bug:', {}, {})
    with Progress(console, total=3, start=0, batch_size=2) as progress:
        progress.report(1, 'eval', {'loss': 1.0, '[b]own/:bug:': 2.0})
    lines = out.getvalue().splitlines()
    assert lines[0] == f'Written to {name}.\\x1b[2J'
    assert lines[1].strip() == '[b] :bug:'
    assert lines[-1] == 'step 1/3  eval   loss 1.0000  [b]own/:bug: 2'
