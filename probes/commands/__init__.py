"""The commands of `probes`, one file each: `command` in `probes/commands/<name>.py`, with its help as docstring."""
