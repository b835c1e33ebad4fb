from ssanet_jax.config import base, flatten
from ssanet_jax.config.describe import help_text, page
from tests.helpers import ROOT


def test_the_committed_page_is_the_generated_one():
    """If this fails, run `python -m ssanet_jax.config.describe > docs/config.md`."""
    assert (ROOT / 'docs/config.md').read_text() == page()


def test_help_and_page_have_every_field_with_its_default():
    for name, default in flatten(base()).items():
        shown = {None: 'unset'}.get(default, str(default)) if type(default) is not tuple else '('
        assert f'\n{name}={shown}' in help_text()
        assert f'\n| `{name}` | `{shown}' in page()
