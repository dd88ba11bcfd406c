"""medtool: from a folder of patients' scans to a table, masks and a report.

Research use only; not a medical device.
"""

__version__ = "0.1.0"

# Stands on the first help page, in every report and in every run.json.
RESEARCH_NOTICE = "Research use only; not a medical device."
