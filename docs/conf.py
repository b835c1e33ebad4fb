"""Settings of Sphinx for `make docs`: Markdown, notebooks and docstrings to docs/_build/html.

The source directory is the root of the repository, so that the links of a page work there too.
"""

import os
import re

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from ssanet_jax import __version__ as version

project = 'SSANet in JAX'
author = 'The SSANet in JAX authors'
copyright = f'{author}, Apache-2.0'  # noqa: A001

extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
root_doc = 'index'
include_patterns = [
    'index.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md',
    'docs/*.md', 'docs/api/*.rst', 'notebooks/*.ipynb',
    'studies/PROTOCOL.md', 'studies/results/*/results.md',
]  # fmt: skip
exclude_patterns = ['.*', 'build', 'runs', 'docs/_build', '**/work']
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!ssanet_jax).*')]  # types of other packages

nb_execution_mode = 'off'
myst_heading_anchors = 4
highlight_language = 'text'

autodoc_default_options = {'members': True, 'no-value': True}
autodoc_preserve_defaults = True
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
autosummary_generate = False
default_role = 'literal'
smartquotes_action = 'D'  # dashes only: docstrings quote code
add_module_names = False
maximum_signature_line_length = 88
napoleon_custom_sections = [('Attributes', 'params_style')]  # 'a, b: of both' is one item
napoleon_use_param = False
napoleon_use_rtype = False
toc_object_entries_show_parents = 'hide'

html_theme = 'furo'
html_title = f'{project} {version}'
html_static_path = ['_static']
html_css_files = ['site.css']


def shorten(app, what, name, obj, options, signature, returned):
    """Leaves out of a signature the fields of all Flax modules, and reprs that are no Python."""
    if signature:
        signature = re.sub(r'parent: .*?name: str \| None = None(, )?', '', signature)
        signature = signature.replace(', )', ')')
        signature = re.sub(r"<class '([\w.]+)'>", r'\1', signature)
        signature = re.sub(r'<[^<>]*>', '...', signature)
    return signature, returned


def skip(app, what, name, obj, skip, options):
    """Leaves out what a signature has: fields of tuples, and classes that are defaults."""
    is_field = type(obj).__name__ == '_tuplegetter' or (what == 'class' and isinstance(obj, type))
    return True if is_field else None


def setup(app):
    app.connect('autodoc-process-signature', shorten)
    app.connect('autodoc-skip-member', skip)
