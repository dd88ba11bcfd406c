"""The report: one HTML file that a clinician can read, on a screen and on paper."""
