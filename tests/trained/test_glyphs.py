"""Names in figures, with a font made for one Chinese character and a font that has none."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from ssanet_jax.tools import show_batch
from ssanet_jax.trained.glyphs import _family_with, legible

CAT, DOG = '\U000fff00\U000fff01'  # private use: no font of any machine has them


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """Installs a font whose only letter is CAT, in the family Cats, and a file that is no font."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((900, 0), (900, 900), (0, 900)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(['.notdef', 'cat'])
    builder.setupCharacterMap({ord(CAT): 'cat'})
    builder.setupGlyf({'.notdef': pen.glyph(), 'cat': pen.glyph()})
    builder.setupHorizontalMetrics({'.notdef': (1000, 0), 'cat': (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupOS2()
    builder.setupNameTable({'familyName': 'Cats', 'styleName': 'Regular'})
    builder.setupPost()
    builder.save(tmp_path / 'cats.ttf')
    gone = font_manager.FontEntry(fname=str(tmp_path / 'gone.ttf'), name='Gone')
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, 'ttflist', [gone, *manager.ttflist])
    manager.addfont(tmp_path / 'cats.ttf')
    _family_with.cache_clear()
    yield
    _family_with.cache_clear()


def test_letters_of_a_font_of_this_machine_are_drawn_and_others_escaped(fonts):
    default = mpl.rcParams['font.family']
    assert legible('Größe, κόκκος, зерно\n1%') == ('Größe, κόκκος, зерно\n1%', default)
    drawn, families = legible(f'a {CAT}{DOG}')
    assert drawn == f'a {CAT}\\U000fff01'
    assert families == [*default, 'Cats']
    figure = Figure((2, 1))
    figure.text(0, 0.5, drawn, fontfamily=families)
    figure.savefig(io.BytesIO())  # warnings of missing glyphs are errors


def test_a_batch_of_classes_in_any_script_is_drawn(fonts, tmp_path):
    names = ['Größe', 'кошка', CAT, DOG]
    images = np.zeros((4, 8, 8, 3), np.uint8)
    show_batch.draw(images, names, 'title', tmp_path / 'batch.png')  # warnings are errors
    assert (tmp_path / 'batch.png').stat().st_size > 1000
