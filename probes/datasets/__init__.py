"""Data sets, one per file; `probes/dataset.py` says what each must define."""
