"""One file per mixer; see `lens.mixer`."""
