"""The report: what several methods say of a prediction, in one HTML file that needs nothing else."""

from whybox.report.collect import collect
from whybox.report.comparison import comparison_page
from whybox.report.findings import Contrasts, Failure, Findings
from whybox.report.fragment import fragment
from whybox.report.record import as_json
from whybox.report.write import check_writable, write, write_page

__all__ = [
    "Contrasts", "Failure", "Findings", "as_json", "check_writable", "collect", "comparison_page", "fragment", "write",
    "write_page",
]  # fmt: skip
