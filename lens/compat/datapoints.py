"""Texts like those that a model was trained on, for a first look: small data sets of the hub."""

from __future__ import annotations

import random
from typing import Any

from lens.model import Transformer

PLACES = {
    "GPT2LMHeadModel": "openwebtext",
    "GPTNeoForCausalLM": "pile",
    "GPTNeoXForCausalLM": "pile",
    "GPTJForCausalLM": "pile",
    "OPTForCausalLM": "pile",
}
"""TransformerLens's names of the data, by architecture."""


class Datapoints(Transformer):
    """What `HookedTransformer` knows of data. `dataset` can be set to anything whose rows have a "text"."""

    dataset: Any = None

    def load_sample_training_dataset(self, **options: Any) -> None:
        """Fetch a small data set into `dataset`; `options` are those of `datasets.load_dataset`.

        Raises:
            ValueError: there is none for this architecture.
        """
        from transformer_lens.utilities.hf_utils import get_dataset

        settings: Any = self.cfg
        kind = settings.original_architecture
        if kind not in PLACES:
            raise ValueError(
                f"there is no sample of what {self.cfg.name} ({kind}) was trained on: set model.dataset"
            )
        self.dataset = get_dataset(PLACES[kind], **options)

    def sample_datapoint(
        self, tokenize: bool = False, prepend_bos: bool | None = None, padding_side: Any = None
    ) -> Any:
        """A text of `dataset` at random, or its ids [1, p]. The data are fetched where they are not there.

        Raises:
            ValueError: as `load_sample_training_dataset`.
        """
        if self.dataset is None:
            self.load_sample_training_dataset()
        model: Any = self
        text = model.dataset[random.randrange(len(model.dataset))]["text"]
        return model.to_tokens(text, prepend_bos=prepend_bos, padding_side=padding_side) if tokenize else text
