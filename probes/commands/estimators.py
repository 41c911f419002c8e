"""`probes estimators`."""

from __future__ import annotations

from probes import cli_options as cli


def command(as_json: cli.Json = False) -> None:
    """List the estimators."""
    from probes.estimator import estimators, get_estimator

    kinds = [get_estimator(name) for name in estimators()]
    if as_json:
        keys = ("name", "summary", "target", "penalty", "grid", "linear")
        cli.print_json([{key: getattr(kind, key) for key in keys} for kind in kinds])
        return
    width = max(len(kind.name) for kind in kinds)
    reads = max(len(kind.target) for kind in kinds)
    for kind in kinds:
        print(f"{kind.name:<{width}}  {kind.target:<{reads}}  {kind.summary}")
