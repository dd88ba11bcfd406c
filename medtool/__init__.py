"""medtool: from a folder of patients' scans to a table, masks and a report.

Research use only; not a medical device.
"""

__version__ = "0.1.0"
