"""What results say of themselves in a notebook: one line, with the figures that matter."""

from __future__ import annotations

import pytest

import circuits
from circuits.agreement import agree
from circuits.completeness import completeness
from circuits.curve import faithfulness_curve
from circuits.node_effects import node_effects
from circuits.stability import stability_over_examples


@pytest.fixture(scope="module")
def found(induction):
    pairs = circuits.load_task("induction").pairs(induction, 4)
    return pairs, circuits.attribute(induction, pairs, "eap", per_example=True)


def test_results_are_one_line(induction, found) -> None:
    pairs, scores = found
    circuit = scores.top(20)
    evaluation = circuits.evaluate(induction, pairs, circuit)
    exact = node_effects(induction, pairs)
    results = {
        "Check(induction: right on ": circuits.load_task("induction").check(induction, pairs),
        "Evaluation(20 edges: logit_diff ": evaluation,
        "Curve(CPR ": faithfulness_curve(induction, pairs, scores, [5, 20]),
        "Stability(20 edges: Jaccard ": stability_over_examples(scores, 20, count=4),
        "Completeness(mean gap ": completeness(induction, pairs, circuit, n_sets=1),
        "Verified(5 edges measured: ": circuits.verify(induction, pairs, scores, k=5),
        "Match(": agree(exact, exact).kinds["all"],
    }
    for start, result in results.items():
        assert repr(result).startswith(start), repr(result)
        assert "\n" not in repr(result) and "tensor" not in repr(result)
    assert f"faithfulness {evaluation.faithfulness:.1%}" in repr(evaluation)
