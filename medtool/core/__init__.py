"""The vocabulary that everything shares: errors, records, geometry, the contract of a task."""
