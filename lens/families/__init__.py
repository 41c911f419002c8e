"""One file per family of models: the directory is the registry, read by `lens.family.families`.

Modules that start with `_` are shared parts, not families.
"""
