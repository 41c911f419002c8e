"""The likelihood of the text: what the model's own log-probability of the whole text tells of the class.

1. The sum of the log-probabilities of a text's tokens, each given those before it, and their mean: 2 numbers a row.
2. Per fold a logistic or ridge regression on these two, standardised.

A language model finds many true statements more likely than false ones; a probe for truth has to do better.

Letters: n rows, b batch, p position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from probes.crossfit import direct
from probes.floor import Decide, Floor, Place, Setting
from probes.labelled import Labelled
from probes.prompts import Prompts
from probes.splits import Fold
from probes.trial import Trial

if TYPE_CHECKING:
    from lens.model import Transformer


def missing(setting: Setting) -> str | None:
    """There is no model, or rows are words of a text."""
    if setting.model is None:
        return "there is no model to ask"
    return "it is of whole texts, and the rows are words" if setting.labelled.spans is not None else None


def told(
    model: Transformer, labelled: Labelled, batch_size: int = 32, prepend_bos: bool | None = None
) -> np.ndarray:
    """Sum and mean of the log-probabilities of each text's tokens, [n, 2]; 0 for a text of one token."""
    prompts = Prompts.of(model, list(labelled.texts), prepend_bos)
    found = np.zeros((labelled.n, 2))
    for batch in prompts.batches(model, batch_size):
        logits = model(batch.ids, attention_mask=batch.attention_mask)[:, :-1].double()
        chosen = logits.log_softmax(-1).gather(-1, batch.ids[:, 1:, None])[..., 0]
        there = batch.mask[:, 1:]
        total = chosen.masked_fill(~there, 0).sum(1)
        both = torch.stack([total, total / there.sum(1).clamp(min=1)], 1)
        found[batch.index.cpu().numpy()] = both.cpu().numpy()
    return found


def prepare(setting: Setting) -> Decide:
    """Decisions [n], [n, c] or [n, t]."""
    from sklearn.linear_model import LogisticRegression, Ridge

    assert setting.model is not None
    x = told(setting.model, setting.labelled, setting.batch_size, setting.prepend_bos)

    def decide(trial: Trial, place: Place) -> np.ndarray:
        def of(fold: Fold) -> np.ndarray:
            centre, scale = x[fold.train].mean(0), x[fold.train].std(0)
            z = (x - centre) / np.where(scale > 0, scale, 1)
            if trial.reads == "values":
                fitted = Ridge().fit(z[fold.train], trial.y[fold.train])
                return fitted.predict(z[fold.test]).reshape(len(fold.test), -1)
            fitted = LogisticRegression(C=1e3, max_iter=1000).fit(z[fold.train], trial.y[fold.train])
            return fitted.decision_function(z[fold.test])

        return direct(trial, of)

    return decide


FLOOR = Floor("how likely the model finds the text", ("classes", "values"), missing, prepare)
