"""Records what TransformerLens 2.18's HookedTransformer answers to `calls.py`, as reference/*.safetensors and .json.

Run it where that version is installed; nothing of this project is imported:

    python -m venv tl218 && tl218/bin/pip install torch==2.13.0 transformer-lens==2.18.0 "pyarrow<20"
    tl218/bin/python tests/compat/record.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import calls  # noqa: E402

PROCESSING = {
    "fold_ln": True,
    "center_writing_weights": True,
    "center_unembed": True,
    "fold_value_biases": True,
}


def tokenizer() -> Any:
    """One id per word; said to add the token in front, so that TransformerLens does not look for it on the hub."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(calls.WORDS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(t, special=True) for t in calls.WORDS[:3]])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        add_bos_token=True,
        name_or_path="words",
    )


def made(name: str, processed: bool, **flags: bool) -> tuple[HookedTransformer, dict[str, torch.Tensor]]:
    """A model with random weights, and these weights."""
    config = {**calls.CONFIGS[name], "device": "cpu", "seed": 0}
    model = HookedTransformer(HookedTransformerConfig(**config), tokenizer())
    weights = calls.noise(model.state_dict())
    model.load_state_dict(weights, strict=False)
    if processed:
        kind = config["normalization_type"]
        flags = {**PROCESSING, **flags}
        model = HookedTransformer(
            HookedTransformerConfig(
                **{**config, "normalization_type": f"{kind}Pre" if flags["fold_ln"] else kind}
            ),
            tokenizer(),
        )
        model.load_and_process_state_dict(dict(weights), **flags)
    return model, weights


def kept(model: HookedTransformer) -> dict[str, torch.Tensor]:
    """Weights, without what TransformerLens makes anew."""
    return {n: x for n, x in model.state_dict().items() if not n.endswith(("mask", "IGNORE", "_sin", "_cos"))}


def record(name: str, processed: bool) -> None:
    model, weights = made(name, processed)
    cached, labels = calls.of_cache(model)
    texts, words = calls.of_texts(model)
    groups = {
        "weights": kept(model) if processed else weights,
        "runs": calls.of_runs(model),
        "sites": calls.of_sites(model) if name in ("gpt2", "llama", "solu") else {},
        "cache": cached,
        "views": calls.of_weights(model),
        "texts": texts,
    }
    stem = HERE / "reference" / f"{name}{'-processed' if processed else ''}"
    write(
        {f"{group}/{key}": x for group, found in groups.items() for key, x in found.items()},
        f"{stem}.safetensors",
    )
    Path(f"{stem}.json").write_text(json.dumps({"labels": labels, "words": words}, indent=1) + "\n")


def write(tensors: dict[str, torch.Tensor], path: Path | str) -> None:
    save_file({name: x.detach().clone().contiguous() for name, x in tensors.items()}, path)
    Path(path).chmod(0o644)


def record_rest() -> None:
    """First weights by seed, factors made even, heads ungrouped."""
    found = {}
    for mode in calls.INITIAL:
        for name in ("gpt2", "llama"):
            config = {**calls.CONFIGS[name], "n_layers": 1, "init_mode": mode, "device": "cpu", "seed": 11}
            model = HookedTransformer(HookedTransformerConfig(**config))
            found |= {f"initial/{mode}/{name}/{n}": x for n, x in calls.weighed(kept(model)).items()}
    model, _ = made("gpt2", True, refactor_factored_attn_matrices=True)
    found |= {f"refactored/{n}": x for n, x in kept(model).items()}
    found["refactored logits"] = model(calls.ids())
    model, _ = made("llama", False)
    model.set_ungroup_grouped_query_attention(True)
    cache = model.run_with_cache(calls.ids())[1]
    found |= {f"ungrouped/blocks.1.attn.hook_{n}": cache[n, 1] for n in "kvz"}
    model, _ = made("llama", False)
    model.load_state_dict({"blocks.0.mlp.b_in": torch.linspace(-1, 1, 12)}, strict=False)
    found["logits with b_in"] = model(calls.ids())
    write(found, HERE / "reference" / "rest.safetensors")


if __name__ == "__main__":
    (HERE / "reference").mkdir(exist_ok=True)
    for config in calls.CONFIGS:
        for processed in (False, True):
            record(config, processed)
    record_rest()
