"""A page about a run, in one file that opens anywhere."""

from ssanet_jax.report.page import report_at_end, write_report

__all__ = ['report_at_end', 'write_report']
