"""Pages of a study, from an analysis with made-up numbers."""

import dataclasses
import math
import re
from xml.etree import ElementTree

import pytest

from ssanet_jax.study import results
from ssanet_jax.study.page import write_pages
from ssanet_jax.study.tables import terminal_table
from tests.browser import PHONE, messages, open_page, requests
from tests.study import made_up

SVG = '{http://www.w3.org/2000/svg}'
EVIL = '<script>alert(1)</script>'


def write(path, analysis):
    path.mkdir(exist_ok=True)
    folder = made_up.folder(path)
    write_pages(folder, analysis)
    return folder


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    return write(tmp_path_factory.mktemp('study'), made_up.analysis())


def row(text, title, name):
    """Cells of the row of `name` in the Markdown table of a title."""
    table = text[text.index(f'**{title}') :].split('\n\n')[1]
    (line,) = [line for line in table.splitlines() if line.startswith(f'| {name} |')]
    return [cell.strip() for cell in line.strip('|').split('|')]


def known():
    """`made_up.analysis` with numbers of `ssa` whose rounding was done by hand."""
    analysis = made_up.analysis(['none', 'ssa'], pairs=2)
    base, ssa = analysis.variants
    ssa = dataclasses.replace(
        ssa,
        accuracy=results.Estimate((98.0, 98.26), 98.13, 0.18385, 98.0, 98.26),
        nll=results.Estimate((0.0751, 0.0812), 0.07815, 0.00431, 0.0751, 0.0812),
        ece=results.Estimate((0.0101, 0.0123), 0.0112, 0.00156, 0.0101, 0.0123),
        parameters=272_493,
        macs=2_547_000,
        memory_bytes=31_981_568,
        seconds=1834.4,
        images_per_second=1562.7,
    )
    comparison = dataclasses.replace(
        analysis.comparisons[0],
        accuracy=results.PairedTest(
            results.Estimate((-0.5, 0.496), -0.002, 0.70428, -0.5012, 0.4961),
            results.Proportion(0.5, 0.0949, 0.9051, 1, 0, 1),
            wilcoxon_p=0.03125,
            holm_p=0.00098,
            pairs_needed=44,
            verdict='no difference that matters',
            sentence='A sentence about ssa.',
        ),
        nll=results.Estimate((-0.001, 0.0), -0.00054, 0.0007, -0.00104, 0.00002),
        ece=results.Estimate((-0.001, 0.0), -0.00112, 0.0007, -0.0021, 0.00004),
        mcnemar=results.McNemar(1234, 987, 0.2149),
    )
    return dataclasses.replace(analysis, variants=(base, ssa), comparisons=(comparison,))


def test_markdown_has_the_numbers_rounded(tmp_path):
    text = write(tmp_path, known()).markdown.read_text()
    assert row(text, 'Mean ±', 'ssa') == [
        'ssa', '2', '98.13 ± 0.18 (98.00 to 98.26)', '0.078 ± 0.004 (0.075 to 0.081)',
        '1.12 ± 0.16 (1.01 to 1.23)', '272,493', '2.547 M', '30.5', '1,563', '1,834',
    ]  # fmt: skip
    assert row(text, 'Accuracy**', 'ssa') == [
        'ssa', '2', '+0.00 [-0.50, +0.50]', '0.50 [0.09, 0.91]', '0.031', '< 0.001',
        '1,234 : 987, p = 0.215', 'no difference that matters',
    ]  # fmt: skip
    assert row(text, 'Likelihood', 'ssa') == [
        'ssa', '-0.0005 [-0.0010, +0.0000]', '-0.11 [-0.21, +0.00]',
    ]  # fmt: skip
    for part in (
        '# Does attention help?\n\nA paragraph.\n', '* A sentence about ssa.', '±0.3 points',
        'Runs: 4 of 7, 3 missing. Missing pairs: ssa 3.', 'commit 0123456789ab', 'jax 0.10.2',
        'AMD EPYC, 2 cores', '718 training images', '1,079 test images',
    ):  # fmt: skip
        assert part in text


def test_robustness_is_averaged_over_runs(study):
    analysis, text = made_up.analysis(), study.markdown.read_text()
    for kind in made_up.CORRUPTIONS:
        assert row(text, 'Mean accuracy by corruption', kind)[1:] == [
            f'{math.fsum(v.corruptions[kind].values) / 20:.1f}' for v in analysis.variants
        ]


def test_the_terminal_gets_a_row_per_variant():
    table = terminal_table(known())
    cells = [
        [column.cell(value) for column, value in zip(table.columns, values, strict=True)]
        for values in table.rows
    ]
    assert [line[0] for line in cells] == ['none', 'ssa']
    assert cells[0][3:] == ['-', '-', '-']
    assert cells[1][2:] == [
        '98.13 ± 0.18', '+0.00 [-0.50, +0.50]', '< 0.001', 'no difference that matters'
    ]  # fmt: skip


def test_differences_have_a_marker_per_pair(study):
    tree = ElementTree.parse(study.figure('differences'))
    for name in made_up.NAMES[1:]:
        (dots,) = tree.iterfind(f'.//{SVG}g[@id="pairs_{name}"]')
        assert len(list(dots.iter(f'{SVG}use'))) == 20


def test_equal_differences_do_not_hide_each_other(tmp_path):
    analysis = made_up.analysis(['none', 'ssa'], pairs=3)
    same = dataclasses.replace(
        analysis.comparisons[0], accuracy=made_up.paired_test('ssa', [0.1, 0.1, 0.1])
    )
    folder = write(tmp_path, dataclasses.replace(analysis, comparisons=(same,)))
    (dots,) = ElementTree.parse(folder.figure('differences')).iterfind(
        f'.//{SVG}g[@id="pairs_ssa"]'
    )
    assert len({use.get('y') for use in dots.iter(f'{SVG}use')}) == 3


@pytest.mark.parametrize('name', ['curves', 'cost'])
def test_figures_name_every_variant(name, study):
    tree = ElementTree.parse(study.figure(name))
    words = {text.text for text in tree.iter(f'{SVG}text')}
    assert set(made_up.NAMES[1:]) <= words
    assert study.figure(name).name in study.markdown.read_text()


def test_untrusted_text_is_escaped(tmp_path):
    names = ['none', EVIL]
    folder = write(tmp_path, made_up.analysis(names, 2, question=f'Is {EVIL} bad?'))
    page = folder.page.read_text()
    assert '<script' not in page
    assert 'Is &lt;script&gt;alert(1)&lt;/script&gt; bad?' in page
    for name in ('differences', 'curves', 'cost'):
        assert not list(ElementTree.parse(folder.figure(name)).iter(f'{SVG}script'))


def test_a_browser_loads_nothing_else(study, chromium):
    open_page(chromium, study.page, PHONE)
    width, loaded = chromium.execute_script(
        'return [document.documentElement.scrollWidth,'
        ' [...document.images].filter(image => image.naturalWidth).length]'
    )
    assert (width, loaded) == (PHONE[0], 3)
    assert requests(chromium) == [study.page.as_uri()]
    assert messages(chromium) == []
    assert re.findall(r'(?:src|href)="(?!data:)', study.page.read_text()) == []


@pytest.mark.parametrize('names', [['none'], ['none', 'ssa']])
@pytest.mark.parametrize('pairs', [1, 3])
def test_incomplete_studies_have_pages(names, pairs, tmp_path):
    folder = write(tmp_path, made_up.analysis(names, pairs, corruptions=()))
    text = folder.markdown.read_text()
    assert 'None' not in text
    assert ('* ssa: No interval.' in text) == (len(names) > 1 and pairs == 1)
    assert 'Corrupted' not in text
    assert ('## Differences from none' in text) == (len(names) > 1)
    assert folder.figure('differences').exists() == (len(names) > 1)
    assert set(re.findall(r'\((\w+\.svg)\)', text)) == {p.name for p in tmp_path.glob('*.svg')}


def test_a_study_without_runs_of_the_baseline_has_pages(tmp_path):
    analysis = made_up.analysis(['ssa', 'se'], 2)
    analysis = dataclasses.replace(
        analysis, baseline='none', comparisons=(), binomial_standard_error=None,
    )  # fmt: skip
    text = write(tmp_path, analysis).markdown.read_text()
    assert row(text, 'Mean ±', 'se')[1] == '2'


def test_curves_may_be_empty(tmp_path):
    analysis = made_up.analysis(['none', 'ssa'], 2)
    empty = results.Curve((), (), ())
    variants = tuple(dataclasses.replace(v, train_loss=empty) for v in analysis.variants)
    folder = write(tmp_path, dataclasses.replace(analysis, variants=variants))
    assert not folder.figure('curves').exists()
    assert 'curves' not in folder.markdown.read_text()
