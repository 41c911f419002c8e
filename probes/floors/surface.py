"""The surface form: what character n-grams of the row's text tell, without any model.

1. Counts of all n-grams of 1 to 5 characters of the text (of the word, where rows are words), its ends marked by a
   space, hashed to 2¹⁶ columns, each row of length 1.
2. Logistic regression (C = 10) or ridge regression (alpha = 0.1) on these, per fold.

Letters: n rows.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from probes.crossfit import direct
from probes.floor import Decide, Floor, Place, Setting, never
from probes.splits import Fold
from probes.trial import Trial

COLUMNS = 2**16
LONGEST = 5


def prepare(setting: Setting) -> Decide:
    """Decisions [n], [n, c] or [n, t]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    vectorizer = HashingVectorizer(
        n_features=COLUMNS, analyzer="char", ngram_range=(1, LONGEST), lowercase=False, alternate_sign=False
    )
    x: Any = vectorizer.transform([f" {word} " for word in setting.labelled.words()])

    def decide(trial: Trial, place: Place) -> np.ndarray:
        def of(fold: Fold) -> np.ndarray:
            if trial.reads == "values":
                fitted = Ridge(alpha=0.1, solver="sparse_cg").fit(x[fold.train], trial.y[fold.train])
                return fitted.predict(x[fold.test]).reshape(len(fold.test), -1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a floor may stop early
                fitted = LogisticRegression(C=10.0, max_iter=300).fit(x[fold.train], trial.y[fold.train])
            return fitted.decision_function(x[fold.test])

        return direct(trial, of)

    return decide


FLOOR = Floor("character n-grams of the text, without a model", ("classes", "values"), never, prepare)
