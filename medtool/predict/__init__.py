"""From a checkpoint and cases to predictions."""
