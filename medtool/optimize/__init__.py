"""What makes a trained model ready for the machine where it runs: export, INT8, pruning."""
