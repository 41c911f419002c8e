"""What callers give: natural forms are taken, wrong sorts are one line that names what would do."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

import probes
from probes.splits import Fold

SITE = "blocks.0.hook_resid_post"
FAST = {"bootstrap": 20, "floors": ["majority"], "C": 0.1}


def problem(n: int = 40) -> tuple[np.ndarray, probes.Labelled]:
    y = [i % 2 for i in range(n)]
    x = np.random.default_rng(0).normal(size=(n, 6)) + 2 * np.array(y)[:, None]
    return x.astype(np.float32), probes.Labelled.of([f"t{i}" for i in range(n)], y)


def test_arrays_are_activations() -> None:
    x, labelled = problem()
    expected = probes.sweep({SITE: torch.from_numpy(x)}, labelled, **FAST)
    frozen = x.copy()
    frozen.setflags(write=False)
    for given in (x, np.asfortranarray(x), frozen):
        found = probes.sweep({SITE: given}, labelled, **FAST)
        assert found.table.equals(expected.table)
    probe = found.probe()
    table = probes.evaluate(probe, {SITE: x}, labelled, bootstrap=20)
    assert table.equals(probes.evaluate({"a": probe}, {SITE: torch.from_numpy(x)}, labelled, bootstrap=20))
    assert len(probes.evaluate([probe, probe], {SITE: x}, labelled, bootstrap=20)) == 2 * len(table)
    erased = probes.fit_eraser("leace", x, labelled.target(), site=SITE)
    assert (erased.left == probes.fit_eraser("leace", torch.from_numpy(x), labelled.target()).left).all()
    assert len(probes.fit_many("logistic", x, [probes.Problem(np.arange(40) % 2, penalty=0.1)])) == 1


def test_folds_in_any_form() -> None:
    x, labelled = problem()
    pairs = list(KFold(4, shuffle=True, random_state=0).split(x))
    forms = (
        [Fold(train, test) for train, test in pairs],
        pairs,
        (pair for pair in pairs),
        [[train.tolist(), test.tolist()] for train, test in pairs],
        [(np.isin(np.arange(40), train), np.isin(np.arange(40), test)) for train, test in pairs],
        KFold(4, shuffle=True, random_state=0),
    )
    tables = [probes.sweep({SITE: x}, labelled, cv=cv, **FAST).table for cv in forms]
    for table in tables[1:]:
        assert table.equals(tables[0])
    found = probes.sweep({SITE: x}, labelled, cv=StratifiedKFold(4), **FAST)
    assert found.record["cv"].startswith("StratifiedKFold(n_splits=4")
    grouped = probes.Labelled.of(labelled.texts, [i % 2 for i in range(40)], [i // 4 for i in range(40)])
    by_group = probes.sweep({SITE: x}, grouped, cv=GroupKFold(5), **FAST)
    for fold in by_group.trials[0].splits.outer:
        assert not {i // 4 for i in fold.train.tolist()} & {i // 4 for i in fold.test.tolist()}
    with pytest.raises(ValueError, match=r"the group '.*' leaks, it has rows on both sides"):
        probes.sweep({SITE: x}, grouped, cv=KFold(4), **FAST)
    two = probes.Labelled.of(labelled.texts, [i % 2 for i in range(40)], [("a", f"g{i}") for i in range(40)])
    with pytest.raises(ValueError, match="rows belong to several groups, and a splitter takes one"):
        probes.sweep({SITE: x}, two, cv=GroupKFold(5), **FAST)


def test_folds_keep_sorted_rows() -> None:
    fold = Fold([3, 1], np.array([True, False, True]))
    assert fold.train.tolist() == [1, 3] and fold.test.tolist() == [0, 2]
    with pytest.raises(ValueError, match="row 3 stands twice among the train rows of a fold"):
        Fold([3, 1, 3], [0])
    for wrong in ([0.5], [[1]], None, "ab"):
        with pytest.raises(ValueError, match="the train rows of a fold are row numbers"):
            Fold(wrong, [0])
    x, labelled = problem()
    with pytest.raises(ValueError, match="fold 1 names row -1, and there are 40 rows"):
        probes.sweep({SITE: x}, labelled, cv=[(list(range(20)), [-1, 30])], **FAST)


def test_labels_and_groups_of_any_kind() -> None:
    for labels in (["0", "1"], np.array([0, 1]), torch.tensor([0, 1]), pd.Series([0, 1], index=[7, 9])):
        target = probes.Labelled.of(["a", "b"], labels).target()  # type: ignore[arg-type]
        assert isinstance(target, probes.Classes) and target.names == ("0", "1")
    assert probes.Labelled.of(["a", "b"], [0, 1], [("x", "y"), "z"]).groups == (("x", "y"), ("z",))
    assert probes.Labelled.of(["a", "b"], [0, 1]).subset(slice(0, 1)).texts == ("a",)


def test_tables_in_memory() -> None:
    columns = {"text": ["a", "b"], "label": [True, False], "group": ["x", "y"], "length": [1, 2]}
    rows = [{name: values[i] for name, values in columns.items()} for i in range(2)]
    for table in (columns, pd.DataFrame(columns), rows):
        found = probes.Labelled.from_table(table)
        assert found.texts == ("a", "b") and found.groups == (("x",), ("y",))
        assert found.target().names == ("false", "true")  # type: ignore[union-attr]
        assert found.column("length").tolist() == [1, 2]
    with pytest.raises(ValueError, match="the table's column 'label' has 1 rows, and 'text' has 2"):
        probes.Labelled.from_table({"text": ["a", "b"], "label": [0]})
    with pytest.raises(ValueError, match="the table, row 1: it has no 'label'"):
        probes.Labelled.from_table(pd.DataFrame({"text": ["a", "b"], "label": ["x", None]}))
    for wrong in (None, "a.csv", 3, []):
        with pytest.raises(ValueError, match=r"the table is .*; give columns by name"):
            probes.Labelled.from_table(wrong)
    with pytest.raises(ValueError, match=r"give one split of a datasets\.Dataset; Labelled.from_table takes"):
        probes.Labelled.from_huggingface([{"text": "a"}])


WRONG = {
    "probes.sweep(x, L)": "the activations are a ndarray; give a tensor or array [n, d] for each site by name",
    "probes.sweep({S: x.astype(int)}, L)": "'blocks.0.hook_resid_post' is an array of int64; it must be a tensor",
    "probes.sweep({S: x.tolist()}, L)": "'blocks.0.hook_resid_post' is a list; it must be a tensor or array",
    "probes.sweep({0: x}, L)": "a site is named by a text such as 'blocks.3.hook_resid_post', not by 0",
    "probes.sweep({S: x}, [0, 1])": "the labelled rows are a list; make them with probes.Labelled.of",
    "probes.sweep({S: x}, L, 3)": "3 is not a known estimator; choose from",
    "probes.sweep({S: x}, L, cv='5')": "cv is '5'; it must be a number of folds, a list of",
    "probes.sweep({S: x}, L, cv=2.5)": "cv is 2.5; it must be a number of folds",
    "probes.sweep({S: x}, L, cv=[1, 2])": "cv has 1 where a fold should be",
    "probes.sweep({S: x}, L, C=['a'])": "C is 'a'; it is a number, several, or 'grid'",
    "probes.sweep({S: x}, L, targets=3)": "targets are 3; they must be names",
    "probes.sweep({S: x}, L, targets=[3])": "targets are names, and 3 is none",
    "probes.sweep({S: x}, L, groups=[1, 2])": "groups (columns of the data) are names, and 1 is none",
    "probes.sweep({S: x}, L, controls='1')": "controls is '1'; it must be a whole number of at least 0",
    "probes.sweep({S: x}, L, permutations=1.5)": "permutations is 1.5; it must be a whole number",
    "probes.sweep({S: x}, L, floors=[3])": "floors are names, and 3 is none",
    "probes.sweep({S: x}, L, model='smollm2')": "load it, lens.load('smollm2')",
    "probes.sweep({S: x}, L, options=['a'])": "options are a list; they must be values by name",
    "probes.harvest('smollm2', ['a'])": "load it, lens.load('smollm2')",
    "probes.train('smollm2', L)": "load it, lens.load('smollm2')",
    "probes.Labelled.of('ab', [0, 1])": "texts are 'ab'; they must be a list",
    "probes.Labelled.of([1, 2], [0, 1])": "text 0 is 1, not a text",
    "probes.Labelled.of(['a', 'b'], None)": "labels are None; they must be a list",
    "probes.Labelled.of(['a', 'b'], [[0], [1]])": "row 0 has the label [0]; a label is one text",
    "probes.Labelled('n', ('a',), [0], None, {'l': np.array([0])})": "target 'l' is a ndarray; it must be probes.Cla",
    "probes.Labelled.from_csv(3)": "a path is a text, not 3",
    "L.target(3)": "3 is not a target of texts; choose from label",
    "L.subset([[1, 2]])": "rows are row numbers [k], or a truth value for each row",
    "probes.Values.of([[1.0, 2.0]], 'a')": "values are one for each row, [n], not [1, 2]",
    "probes.Activations.of({S: x}).take(S, [0.5])": "rows are row numbers [k], ranges of rows",
    "probes.evaluate(L, {S: x}, L)": "the probes are a Labelled; they must be a Probe",
    "probes.fit_eraser('leace', None, L.target())": "x is None; it must be a tensor or array",
    "probes.fit_eraser(3, x, L.target())": "3 is not a known eraser; choose from",
    "probes.fit_many('logistic', x, [y])": "problem 0 is a list; it must be a probes.Problem(y)",
    "probes.get_estimator(None)": "None is not a known estimator; choose from",
    "probes.load_dataset(3)": "3 is not a known data set; choose from",
    "probes.load_dataset('truth', seed='a')": "seed is 'a'; it must be a whole number of at least 0",
    "probes.steer('m', ['a'], x[0], S, [0, 1], len)": "the model is 'm'; it must be one that lens.load gives",
    "probes.writers('m', ['a'], x[0], S)": "the model is 'm'; it must be one that lens.load gives",
    "probes.amnesic('m', L, None)": "the model is 'm'; it must be one that lens.load gives",
    "probes.Config.of(None)": "the settings are None; they must be values by name",
    "probes.Config.read(3)": "a path is a text, not 3",
    "probes.Eraser.load(None)": "a path is a text, not None",
    "probes.Answers('a')": "the words are 'a'; they must be a text for each class by its name",
    "probes.Refit(folds=1)": "folds is 1; it must be a whole number of at least 2",
    "probes.Refit(folds='5')": "folds is '5'; it must be a whole number of at least 2",
    "probes.Probe.load(3)": "a path is a text, not 3",
    "probes.Run.load(None)": "a path is a text, not None",
    "P.scores(x.tolist())": "what the probe of 'blocks.0.hook_resid_post' reads is a list; it must be a tensor",
    "P.predict(None)": "what the probe of 'blocks.0.hook_resid_post' reads is None; it must be a tensor",
    "probes.ProbeScore(3)": "the probe is 3, not a Probe",
}  # fmt: skip

CALLS = """
import json, sys
import numpy as np
import torch
import probes
S = "blocks.0.hook_resid_post"
x, y = np.zeros((40, 6)), [i % 2 for i in range(40)]
L = probes.Labelled.of([f"t{i}" for i in range(40)], y)
P = probes.Probe.of(torch.ones(1, 6), torch.zeros(1), S, ("0", "1"))
told = {}
for call in json.loads(sys.argv[1]):
    try:
        eval(call)
        told[call] = "nothing is wrong"
    except Exception as error:
        told[call] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


def test_wrong_sorts_are_one_line() -> None:
    """In a process of its own: here annotations are checked before the functions themselves can be."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(list(WRONG))], capture_output=True, text=True, check=True
    )
    for call, told in json.loads(done.stdout).items():
        assert told.startswith("ValueError: ") and WRONG[call] in told and "\n" not in told, (call, told)


def test_frozen_probes_take_arrays_and_name_what_they_cannot_take() -> None:
    x, labelled = problem()
    probe = probes.sweep({SITE: x}, labelled, **FAST).probe()
    assert torch.equal(probe.scores(x), probe.scores(torch.from_numpy(x)))
    assert torch.equal(probe.predict(x), probe.predict(torch.from_numpy(x)))
