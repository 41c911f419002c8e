"""Ratios, not seconds: what things cost, measured side by side in one run on one thread."""
