"""Audits as one HTML page: verdicts, figures, settings, versions. It loads nothing, and prints well."""

from labkit.headless.report.page import report_html, to_html
from labkit.headless.report.plain import report_json, report_lines

__all__ = ["report_html", "report_json", "report_lines", "to_html"]
