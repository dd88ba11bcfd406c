"""The training loop, its stages, its state, and weights from elsewhere."""
