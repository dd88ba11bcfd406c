"""Labels, cohort, splits, leakage, cache and the files of a run; no torch."""
