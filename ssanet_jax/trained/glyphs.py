"""Text in figures in any script: fonts of this machine for what matplotlib's own lacks."""

import functools

import matplotlib as mpl
from matplotlib import font_manager


def legible(text: str) -> tuple[str, list[str]]:
    r"""Text that can be drawn, and the font families to draw it with.

    The first families are matplotlib's, whose DejaVu covers Latin, Greek and Cyrillic letters. The
    others are installed on this machine and have letters that those lack, such as Chinese.
    Characters that no font has are escaped, and not drawn as boxes.

    >>> legible('Größe, κόκκος, зерно')[0]
    'Größe, κόκκος, зерно'
    >>> legible('cat \U000fff00')[0]
    'cat \\U000fff00'
    """
    families, drawn = list(mpl.rcParams['font.family']), ''
    for character in text:
        family = _family_with(character)
        drawn += character.encode('unicode_escape').decode() if family is None else character
        if family and family not in families:
            families.append(family)
    return drawn, families


@functools.cache
def _family_with(character: str) -> str | None:
    """The family of a font that has a character; '' for the default font, None for none."""
    code = ord(character)
    default = font_manager.findfont(font_manager.FontProperties())
    if character == '\n' or code in _characters(default):
        return ''
    for font in font_manager.fontManager.ttflist:
        boxes = 'lastresort' in font.name.lower().replace(' ', '')  # has a box for every character
        if not boxes and code in _characters(font.fname):
            return font.name
    return None


@functools.cache
def _characters(file: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):  # an uninstalled font, or one of bitmaps
        return frozenset()
