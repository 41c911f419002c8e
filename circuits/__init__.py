"""Circuits of transformers: pairs of prompts, attribution of edges, exact patches, evaluation of edge sets.

    pairs = circuits.load_task("ioi").pairs(model, n=32, seed=0)
    scores = circuits.attribute(model, pairs, method="eap-ig")
    circuit = scores.top(1000)
    circuits.evaluate(model, pairs, circuit).faithfulness

What is named here is imported when it is first used, so `import circuits` alone is quick. Some functions
share their name with the module they live in (`circuits.patch`): as an attribute of the package the name is
always the function, and `from circuits.patch import …` reaches the module.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.agreement import agree
    from circuits.attribute import attribute
    from circuits.attribute_nodes import attribute_nodes
    from circuits.circuit import Circuit
    from circuits.compare import Comparison, compare
    from circuits.completeness import completeness, minimality
    from circuits.curve import Curve, faithfulness_curve, random_curve
    from circuits.discover import discover
    from circuits.evaluate import Evaluation, evaluate, evaluate_at, evaluate_many
    from circuits.exact_edges import EdgeEffects, patch_edges
    from circuits.exchange import export, read
    from circuits.graph import Graph
    from circuits.knock_out import KnockOut, knock_out
    from circuits.metrics import METRICS, get_metric
    from circuits.node_effects import node_effects
    from circuits.pairs import Pairs
    from circuits.patch import Patched, patch
    from circuits.paths import direct_effects, path_patch, path_patch_to
    from circuits.planted import plant
    from circuits.record import record
    from circuits.roles import Roles, find_roles
    from circuits.scores import Scores
    from circuits.select import Found, select
    from circuits.stability import stability_between, stability_over_examples
    from circuits.store import Run, list_runs
    from circuits.task import Task
    from circuits.tasks import load_task
    from circuits.truth import recovery
    from circuits.verify import Verified, verify

_HOME = {
    "agree": "circuits.agreement",
    "attribute": "circuits.attribute",
    "attribute_nodes": "circuits.attribute_nodes",
    "Circuit": "circuits.circuit",
    "compare": "circuits.compare",
    "Comparison": "circuits.compare",
    "completeness": "circuits.completeness",
    "minimality": "circuits.completeness",
    "Curve": "circuits.curve",
    "faithfulness_curve": "circuits.curve",
    "random_curve": "circuits.curve",
    "discover": "circuits.discover",
    "evaluate": "circuits.evaluate",
    "evaluate_at": "circuits.evaluate",
    "evaluate_many": "circuits.evaluate",
    "Evaluation": "circuits.evaluate",
    "export": "circuits.exchange",
    "read": "circuits.exchange",
    "EdgeEffects": "circuits.exact_edges",
    "patch_edges": "circuits.exact_edges",
    "Graph": "circuits.graph",
    "knock_out": "circuits.knock_out",
    "KnockOut": "circuits.knock_out",
    "get_metric": "circuits.metrics",
    "METRICS": "circuits.metrics",
    "node_effects": "circuits.node_effects",
    "Pairs": "circuits.pairs",
    "patch": "circuits.patch",
    "Patched": "circuits.patch",
    "direct_effects": "circuits.paths",
    "path_patch": "circuits.paths",
    "path_patch_to": "circuits.paths",
    "plant": "circuits.planted",
    "find_roles": "circuits.roles",
    "Roles": "circuits.roles",
    "Scores": "circuits.scores",
    "Found": "circuits.select",
    "select": "circuits.select",
    "stability_between": "circuits.stability",
    "stability_over_examples": "circuits.stability",
    "list_runs": "circuits.store",
    "Run": "circuits.store",
    "Task": "circuits.task",
    "load_task": "circuits.tasks",
    "record": "circuits.record",
    "recovery": "circuits.truth",
    "Verified": "circuits.verify",
    "verify": "circuits.verify",
}

__all__ = [
    "METRICS", "Circuit", "Comparison", "Curve", "EdgeEffects", "Evaluation", "Found", "Graph",
    "KnockOut", "Pairs", "Patched", "Roles", "Run", "Scores", "Task", "Verified", "agree", "attribute",
    "attribute_nodes", "compare", "completeness", "direct_effects", "discover", "evaluate", "evaluate_at",
    "evaluate_many", "export", "faithfulness_curve", "find_roles", "get_metric", "knock_out", "list_runs",
    "load_task", "minimality", "node_effects", "patch", "patch_edges", "path_patch", "path_patch_to",
    "plant", "random_curve", "read", "record", "recovery", "select", "stability_between", "stability_over_examples",
    "verify",
]  # fmt: skip


class _Package(ModuleType):
    """Keeps the import system from putting a module where the function of the same name is exported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'circuits' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


sys.modules[__name__].__class__ = _Package
