"""Writes the results of a study for readers: results.md, results.html and figures."""

from collections.abc import Sequence

from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.report.charts import data_uri
from ssanet_jax.report.page import load_template
from ssanet_jax.study.figures import draw_figures
from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.study.results import Analysis
from ssanet_jax.study.sections import Section, make_sections
from ssanet_jax.tables import markdown


def write_pages(folder: StudyFolder, analysis: Analysis) -> None:
    """Writes results.md, the self-contained results.html and the figures as SVG.

    Args:
      folder: of the study; its study.json names code and machines.
      analysis: of the runs in `folder`.

    Raises:
      ConfigError: study.json is missing or damaged.
    """
    figures = draw_figures(analysis)
    sections = make_sections(analysis, folder.read_description(), figures.keys())
    files = {folder.figure(name): svg for name, svg in figures.items()}
    files[folder.markdown] = _markdown(folder, analysis, sections)
    files[folder.page] = load_template('results.html', 'ssanet_jax.study').render(
        title=analysis.question,
        summary=analysis.summary,
        sections=sections,
        images={name: data_uri(svg) for name, svg in figures.items()},
    )
    for path, text in files.items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding='utf-8')


def _markdown(folder: StudyFolder, analysis: Analysis, sections: Sequence[Section]) -> str:
    parts = [f'# {analysis.question}', analysis.summary]
    for section in sections:
        parts.append(f'## {section.title}')
        for figure in section.figures:
            parts += [f'![{figure.alt}]({folder.figure(figure.name).name})', figure.caption]
        parts += map(markdown, section.tables)
        parts += ['\n'.join(f'* {note}' for note in section.notes)] if section.notes else []
    return '\n\n'.join(parts) + '\n'
