"""Presets: schema, layers with origins, faults with the nearest name."""
