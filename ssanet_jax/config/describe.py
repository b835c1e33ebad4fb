"""Documentation of the config fields: the text of --help, and docs/config.md.

python -m ssanet_jax.config.describe > docs/config.md
"""

from ssanet_jax.config.field import Check, Field
from ssanet_jax.config.fields import FIELDS

_INTRODUCTION = """\
# Config fields

<!-- Made by `python -m ssanet_jax.config.describe > docs/config.md`; do not edit. -->

A recipe, such as [configs/digits_ssa20.py](../configs/digits_ssa20.py), starts from `base()`, which
has the defaults below, and changes what differs. `--config.FIELD=VALUE` overrides a field of the
recipe; overriding one that has no effect is an error. On resume, the fields marked "resume" may
change (`num_epochs` and `num_train_steps` only if neither a cosine or polynomial schedule nor
`ema.horizon` depends on them), and any with `--allow_config_change`.
"""


def help_text() -> str:
    """One line per field, grouped, with its default and meaning."""
    lines = []
    for group, fields in _groups().items():
        lines += [f'{group}:', *(f'{f.name}={_default(f)}  {f.doc}' for f in fields), '']
    return '\n'.join(lines)


def page() -> str:
    """The text of docs/config.md."""
    lines = [_INTRODUCTION]
    for group, fields in _groups().items():
        lines += [f'## {group}', '', '| field | default | meaning | limits |', '|---|---|---|---|']
        lines += [f'| `{f.name}` | `{_default(f)}` | {f.doc} | {_notes(f)} |' for f in fields]
        lines += ['']
    return '\n'.join(lines)


def _groups() -> dict[str, list[Field]]:
    groups: dict[str, list[Field]] = {}
    for field in FIELDS.values():
        name = field.name.rpartition('.')[0] or 'run'
        groups.setdefault(name, []).append(field)
    return groups


def _default(field: Field) -> str:
    if field.default is None:
        return 'unset'
    if isinstance(field.default, tuple):
        return f'({", ".join(f"{v:.4g}" for v in field.default)})'
    return str(field.default)


def _notes(field: Field) -> str:
    notes = [field.expected] if field.choices or field.check else []
    if field.only_with:
        notes += ['with ' + ' or '.join(_condition(*pair) for pair in field.only_with.items())]
    notes += ['resume'] if field.resumable else []
    return '; '.join(notes)


def _condition(name: str, wanted: object) -> str:
    return f'`{name}` {wanted.meaning}' if isinstance(wanted, Check) else f'`{name}={wanted}`'


if __name__ == '__main__':
    print(page(), end='')
