"""Ways to erase a concept, one per file: a constant ERASER of `probes.eraser.Method`."""
