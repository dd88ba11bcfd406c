"""Numbers with their uncertainty, from stored predictions: numpy and scipy, never torch."""
