"""Runs the tests of faults that users meet, and counts them by kind.

    python benchmarks/reliability/faults.py --out=benchmarks/results/reliability/faults.json

Each test, with each of its parameters, is a try: it makes one mistake, plants one fault or attacks,
and checks what the user sees and what is left on disk. Slow tests are included.
"""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from trials import ROOT, Trials, arguments, conclude

KINDS = {
    'hosts that disagree, hang or fail': (
        'test_host_disagreements.py', 'test_hosts.py', 'training/test_rendezvous.py',
        'training/test_agreement.py', 'training/test_connect.py',
    ),
    'workdirs that are shared, replaced or deleted': (
        'training/test_lock.py', 'training/test_checkpoint_reader.py',
    ),
    'disks that are full or fail': (
        'training/test_atomic_io.py', 'training/test_checkpoint_integrity.py',
    ),
    'output without a reader, names with control characters': (
        'test_output.py', 'tools/test_cli.py',
    ),
    'folders of images': (
        'data/test_image_folder.py', 'data/test_folder_files.py', 'data/test_findings.py',
        'training/test_data_check.py', 'tools/test_check_data.py', 'test_photographs.py',
    ),
    'files of weights': (
        'weights/test_matching.py', 'weights/test_checkpoint_parts.py', 'weights/test_files.py',
        'weights/test_remedies.py',
    ),
    'modules at their limits': ('models/test_edges.py', 'layers/test_by_value.py'),
    'hostile images and browsers': (
        'data/test_bombs.py', 'data/test_shrinking.py', 'tools/test_demo.py', 'test_security.py',
    ),
    'errors whose remedy is applied': ('remedies',),
    'commands that must print nothing else': ('test_silence.py',),
    'launch scripts': ('launch',),
}  # fmt: skip


def run(kind: str) -> list[dict[str, Any]]:
    """Runs the tests of a kind; returns a record of each."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        command = [sys.executable, '-m', 'pytest', '-m', '', '--quiet', f'--junit-xml={report}']
        files = [f'tests/{file}' for file in KINDS[kind]]
        result = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
        if not report.exists():
            raise SystemExit(result.stdout + result.stderr)
        return [_record(kind, case) for case in ElementTree.parse(report).iter('testcase')]


def _record(kind: str, case: ElementTree.Element) -> dict[str, Any]:
    outcome = next((child.tag for child in case if child.tag != 'system-out'), 'passed')
    return {
        'kind': kind,
        'test': f'{case.get("classname")}.{case.get("name")}',
        'outcome': outcome,
        'seconds': float(case.get('time', 0)),
        'problems': [] if outcome in ('passed', 'skipped') else [outcome],
    }


def main() -> None:
    args, began = arguments(__doc__ or '', len(KINDS), 'kinds'), time.perf_counter()
    with Trials('kinds', len(KINDS)) as trials:
        for number, kind in enumerate(list(KINDS)[: args.count], start=1):
            trials.note(kind)
            for record in run(kind):
                trials.add(record, advance=0)
            trials.reached(number)
    conclude(args, began, trials.records)


if __name__ == '__main__':
    main()
