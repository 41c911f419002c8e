"""The model's own behaviour: the answer it gives when it is asked.

1. Each row becomes a prompt, and each class has a word that answers it: "… This statement is" → " true", " false".
2. The model's log-probabilities of the first token of these words, c numbers a row.
3. Per fold a logistic regression on these c numbers (their difference, for two classes), which does no more than set
   the threshold: a model that leans towards one word is not punished for it.

Letters: n rows, c classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.crossfit import direct
from probes.floor import Answers, Decide, Floor, Place, Setting
from probes.labelled import Labelled
from probes.prompts import Prompts
from probes.splits import Fold
from probes.trial import Trial

if TYPE_CHECKING:
    from lens.model import Transformer


def missing(setting: Setting) -> str | None:
    """There is no model, or nobody said how it is asked."""
    if setting.model is None:
        return "there is no model to ask"
    return None if setting.answers is not None else "the data name no words that answer for the classes"


def asked(
    model: Transformer,
    labelled: Labelled,
    answers: Answers,
    batch_size: int = 32,
    prepend_bos: bool | None = None,
) -> np.ndarray:
    """Log-probabilities of the answers, [n, c], in the order of `answers.words`.

    Raises:
        ValueError: two words whose first tokens are the same.
    """
    from lens.text import tokenizer_of

    tokenizer = tokenizer_of(model)
    first = {name: tokenizer.encode(word)[0] for name, word in answers.words.items()}
    for name, token in first.items():
        same = [other for other, t in first.items() if t == token and other != name]
        if same:
            raise ValueError(
                f"the answers {answers.words[name]!r} and {answers.words[same[0]]!r} begin with the same token"
            )
    words, texts = labelled.words(), labelled.texts
    prompts = [
        answers.template.replace("{text}", texts[i]).replace("{word}", word)
        for i, word in zip(labelled.text.tolist(), words, strict=True)
    ]
    found = np.zeros((len(prompts), len(first)))
    for batch in Prompts.of(model, prompts, prepend_bos).batches(model, batch_size):
        logits = model(batch.ids, attention_mask=batch.attention_mask, logits_at=batch.lengths - 1)
        logp = logits[:, 0].double().log_softmax(-1).cpu()
        found[batch.index.cpu().numpy()] = logp[:, list(first.values())].numpy()
    return found


def prepare(setting: Setting) -> Decide:
    """Decisions [n] for two classes, [n, c] for more."""
    from sklearn.linear_model import LogisticRegression

    assert setting.model is not None and setting.answers is not None
    logp = asked(setting.model, setting.labelled, setting.answers, setting.batch_size, setting.prepend_bos)
    places = {name: i for i, name in enumerate(setting.answers.words)}

    def decide(trial: Trial, place: Place) -> np.ndarray:
        if lost := [name for name in trial.names if name not in places]:
            raise ValueError(f"no answer is named for the class {lost[0]!r}")
        x = logp[:, [places[name] for name in trial.names]]
        x = x[:, 1:] - x[:, :1] if len(trial.names) == 2 else x

        def of(fold: Fold) -> np.ndarray:
            centre, scale = x[fold.train].mean(0), x[fold.train].std() or 1.0
            fitted = LogisticRegression(C=1e3, max_iter=1000)
            fitted.fit((x[fold.train] - centre) / scale, trial.y[fold.train])
            return fitted.decision_function((x[fold.test] - centre) / scale)

        return direct(trial, of)

    return decide


FLOOR = Floor("what the model itself answers when asked", ("classes",), missing, prepare)
