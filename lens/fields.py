"""A Hugging Face config being read, strictly: what nobody asked for and might change the numbers is refused.

Reading a field marks it as handled. Whatever is left when the family is done, is not null and is not known to
be harmless, is refused by name: a model that runs with a field silently ignored is a different model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from lens.mlp import ACTIVATIONS
from lens.nearest import unknown

# fmt: off
HARMLESS: frozenset[str] = frozenset(
    {
        # the model's name and who wrote the file
        "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
        "_commit_hash", "_experts_implementation_internal", "_from_model_config", "_name_or_path",
        "architectures", "attn_implementation", "auto_map", "cache_implementation", "dtype",
        "is_llama_config", "keys_to_ignore_at_inference", "model_type", "name_or_path",
        "tie_word_embeddings", "tokenizer_class", "torch_dtype", "torchscript", "transformers.js_config",
        "transformers_version", "unsloth_fixed", "unsloth_version", "use_bfloat16",
        # token ids
        "add_bos_token", "add_eos_token", "bos_token_id", "decoder_start_token_id", "eos_token_id",
        "forced_bos_token_id", "forced_eos_token_id", "pad_token_id", "prefix", "sep_token_id",
        "unk_token_id",
        # training
        "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop",
        "chunk_size_feed_forward", "classifier_dropout", "classifier_dropout_prob", "dropout", "embd_dropout",
        "embd_pdrop", "embed_dropout", "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob",
        "init_std", "initializer_range", "layerdrop", "pretraining_tp", "qa_dropout", "resid_dropout",
        "resid_pdrop", "seq_classif_dropout",
        # other heads
        "finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        "task_specific_params", "tf_legacy_loss",
        # generation: how, and which outputs
        "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
        "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty", "max_length",
        "max_new_tokens", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
        "num_return_sequences", "output_attentions", "output_hidden_states", "output_logits", "output_past",
        "output_scores", "remove_invalid_values", "repetition_penalty", "return_dict",
        "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
        "use_cache",
    }
)
# fmt: on
"""Fields that say nothing about the forward pass of a causal language model."""

INERT: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "tie_encoder_decoder": (False,),
}
"""Fields that say nothing as long as they have one of these values."""

_SIZE = re.compile(r"\w+_size|num_\w+|n_\w+|d_\w+|\w+_(heads|layers|dim|period)")
_COUNTS = re.compile(
    r"(hidden|embed|patch|image|block|window|state)_size|d_(model|kv|ff)|n_embd|dim|num_channels|num_(\w+_)?heads|"
    r"(num|n|num_hidden|num_decoder|encoder|decoder)_(layers?|heads?)|(attn|expert)_layer_period"
)
"""Names of fields that are whole numbers, and those of them of which there must be one at least."""

_REQUIRED: Any = object()


class Fields:
    """The fields of one config, and the names of the checkpoint's tensors where they are known.

    `family` names it in error messages.
    """

    def __init__(self, family: str, values: Mapping[str, Any], tensors: Collection[str] = ()) -> None:
        self.family, self.values, self.tensors = family, values, tensors
        self._read: set[str] = set()

    def get(self, *names: str, default: Any = _REQUIRED, null: Any = _REQUIRED) -> Any:
        """The value of a field, which may go by several names.

        `default` is for a field that is absent, `null` for one that is null (by default the same).

        Raises:
            ValueError: it is absent and has no default, or its names disagree.
        """
        self._read.update(names)
        present = {name: self.values[name] for name in names if name in self.values}
        given = {name: value for name, value in present.items() if value is not None}
        if len({repr(value) for value in given.values()}) > 1:
            pairs = " and ".join(f"{name}={value!r}" for name, value in given.items())
            raise ValueError(f"{self.family} config disagrees with itself: {pairs}")
        for name, value in given.items():
            self._check_size(name, value)
        if given:
            return next(iter(given.values()))
        if present and null is not _REQUIRED:
            return null
        if default is _REQUIRED:
            raise ValueError(f"{self.family} config has no field {names[0]!r}")
        return default

    def _check_size(self, name: str, value: Any) -> None:
        """Refuse a size that is no whole number, or of which there are none; lists are left to who reads them."""
        if not _SIZE.fullmatch(name) or isinstance(value, list | tuple | dict | bool):
            return
        least = 1 if _COUNTS.fullmatch(name) else 0
        if not isinstance(value, int) or value < least:
            wanted = "a whole number" if value != 0 else "one at least"
            raise ValueError(f"{self.family} config field {name}={value!r} should be {wanted}")

    def number(self, *names: str, default: Any = _REQUIRED, null: Any = _REQUIRED) -> Any:
        """A field as a float (files may state an integer) or None; see `get`."""
        value = self.get(*names, default=default, null=null)
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{self.family} config field {names[0]}={value!r} should be a number") from None

    def only(self, name: str, *accepted: Any) -> None:
        """Refuse a field whose value is neither null nor one of `accepted`."""
        self._read.add(name)
        value = self.values.get(name)
        if value is not None and value not in accepted:
            reason = f"is not supported{_choices(accepted)}"
            raise ValueError(f"{self.family} config field {name}={value!r} {reason}")

    def ignore(self, *names: str) -> None:
        """Fields that do not change the forward pass of this family."""
        self._read.update(names)

    def activation(self, *names: str, default: str) -> str:
        """The name of an activation function.

        Raises:
            ValueError: it is not one of `lens.mlp.ACTIVATIONS`.
        """
        name = self.get(*names, default=default)
        if name not in ACTIVATIONS:
            reason = unknown("activation function", str(name), ACTIVATIONS)
            raise ValueError(f"{self.family} config field {names[0]}: {reason}")
        return name

    def has(self, *tensors: str, unknown: bool = False) -> bool:
        """Does the checkpoint have one of these tensors? `unknown` where there is no checkpoint yet."""
        return any(name in self.tensors for name in tensors) if self.tensors else unknown

    @property
    def chooses(self) -> bool:
        """Does the checkpoint say which of several texts fits (a model of multiple choice)?"""
        return any(str(name).endswith("ForMultipleChoice") for name in self.values.get("architectures") or ())

    def n_classes(self) -> int:
        """How many classes a classifier tells apart; the logit of a choice among several texts is one."""
        if self.chooses:
            return 1
        names = self.get("id2label", default=None)
        return len(names) if names else int(self.get("num_labels", default=2))

    def close(self) -> None:
        """Refuse what was not read.

        Raises:
            ValueError: a field that this family does not handle is not null; the message names all of them.
        """
        for name, accepted in INERT.items():
            if name not in self._read:
                self.only(name, *accepted)
        left = sorted(
            name
            for name, value in self.values.items()
            if name not in self._read and name not in HARMLESS and value is not None
        )
        if left:
            pairs = ", ".join(f"{name}={self.values[name]!r}" for name in left)
            raise ValueError(f"the {self.family} family does not handle these config fields: {pairs}")


def _choices(accepted: tuple[Any, ...]) -> str:
    return f"; it can be {' or '.join(map(repr, accepted))}" if accepted else ""
