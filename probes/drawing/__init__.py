"""Pictures of runs, as self-contained SVG."""
