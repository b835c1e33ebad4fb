"""A self-contained HTML page about a run."""

from ssanet_jax.report.page import report_at_end, write_report

__all__ = ['report_at_end', 'write_report']
