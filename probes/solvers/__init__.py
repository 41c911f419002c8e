"""Batched mathematics of linear probes: many labels, penalties, folds and controls over one set of activations."""
