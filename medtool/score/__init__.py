"""Metrics, intervals and comparisons from stored predictions; no torch."""
