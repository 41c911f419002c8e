"""GGUF architectures that are read: how their tensors and metadata are called on Hugging Face.

llama.cpp's converter changes some tensors; the change is undone here:

- llama: the rows of q and k are permuted so that a rotary pair lies side by side (rows 2i and 2i + 1 of a
  head); Hugging Face pairs row i with row i + d_head / 2.
- gemma: 1 is added to every norm's weight.
- llama 3.1 and later: `rope_freqs.weight` holds the divisors of the rotary frequencies; they are recognised
  as `llama3` scaling and the parameters recovered.

Letters: h head, e d_head, d d_model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lens.nearest import unknown

if TYPE_CHECKING:
    import torch

_GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_QK_NORM = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}

# metadata key after "<architecture>." -> field of the Hugging Face config
_FIELDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "attention.key_length": "head_dim",
}
_CHECKED = {
    "attention.value_length",
    "rope.dimension_count",
    "expert_count",
    "expert_used_count",
    "vocab_size",
}
_SCALING = {"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"}


def _unpermute(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows [h (e 2)] with pairs side by side -> [h (2 e)] with pairs half a head apart."""
    split = weight.unflatten(0, (n_heads, -1, 2))
    return split.transpose(1, 2).reshape(weight.shape)


def _llama(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    if ".q_proj." in name:
        return _unpermute(tensor, config["num_attention_heads"])
    if ".k_proj." in name:
        return _unpermute(tensor, config["num_key_value_heads"])
    return tensor


def _gemma(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    return tensor - 1 if name.endswith("norm.weight") else tensor


def _same(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class Architecture:
    """One value of `general.architecture`.

    `undo(name, tensor, config)` takes back what the converter did to a tensor of that Hugging Face name.
    """

    model_type: str
    class_name: str
    block: Mapping[str, str]
    undo: Callable[[str, torch.Tensor, dict[str, Any]], torch.Tensor] = _same
    extra: Mapping[str, Any] = field(default_factory=dict)


ARCHITECTURES = {
    "llama": Architecture(
        "llama",
        "LlamaForCausalLM",
        _BLOCK,
        _llama,
        {"hidden_act": "silu", "mlp_bias": False},
    ),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _BLOCK, extra={"hidden_act": "silu"}),
    "qwen3": Architecture(
        "qwen3",
        "Qwen3ForCausalLM",
        {**_BLOCK, **_QK_NORM},
        extra={"hidden_act": "silu", "attention_bias": False},
    ),
    "gemma": Architecture(
        "gemma",
        "GemmaForCausalLM",
        _BLOCK,
        _gemma,
        {
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
        },
    ),
}


def architecture(metadata: Mapping[str, Any]) -> Architecture:
    """What `general.architecture` says.

    Raises:
        ValueError: it is missing, or not one that is read.
    """
    name = metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise ValueError(unknown("GGUF architecture", str(name), ARCHITECTURES))
    return ARCHITECTURES[name]


def rename(name: str, arch: Architecture) -> str | None:
    """The Hugging Face name of a GGUF tensor; None if it has none."""
    stem, _, leaf = name.rpartition(".")
    if leaf not in ("weight", "bias"):
        return None
    if stem in _GLOBAL:
        return f"{_GLOBAL[stem]}.{leaf}"
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if match is None or match[2] not in arch.block:
        return None
    return f"model.layers.{match[1]}.{arch.block[match[2]]}.{leaf}"


def config(metadata: Mapping[str, Any], names: set[str], n_vocab: int) -> dict[str, Any]:
    """The Hugging Face config of a file with these `metadata` and tensor `names`.

    Raises:
        ValueError: a field is missing, differs between layers, or is one that is not handled; it is named.
    """
    arch = architecture(metadata)
    prefix = f"{metadata['general.architecture']}."
    given = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    _refuse(given, prefix)
    values: dict[str, Any] = {"model_type": arch.model_type, "architectures": [arch.class_name]}
    for key, name in _FIELDS.items():
        if key in given:
            values[name] = _one(prefix + key, given[key])
    for key in ("block_count", "context_length", "embedding_length", "feed_forward_length"):
        if key not in given:
            raise ValueError(f"the GGUF file has no {prefix + key!r}")
    if "num_attention_heads" not in values:
        raise ValueError(f"the GGUF file has no {prefix + 'attention.head_count'!r}")
    values.setdefault("num_key_value_heads", values["num_attention_heads"])
    values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
    for key in ("attention.value_length", "rope.dimension_count"):
        if given.get(key, values["head_dim"]) != values["head_dim"]:
            raise ValueError(
                f"{prefix + key!r} is {given[key]}; only the head size {values['head_dim']} is handled"
            )
    values |= {"rope_theta": values.get("rope_theta", 10_000.0), "vocab_size": n_vocab, **arch.extra}
    if arch.model_type == "llama":
        values["attention_bias"] = "blk.0.attn_q.bias" in names
    if given.get("rope.scaling.type") == "linear":
        values["rope_scaling"] = {"rope_type": "linear", "factor": given["rope.scaling.factor"]}
    for role in ("bos", "eos"):
        values[f"{role}_token_id"] = metadata.get(f"tokenizer.ggml.{role}_token_id")
    values["tie_word_embeddings"] = "output.weight" not in names
    return values


def rope_scaling(divisors: torch.Tensor, config: dict[str, Any]) -> dict[str, Any]:
    """The `llama3` scaling that `rope_freqs.weight` was made from.

    Raises:
        ValueError: the divisors are of another kind.
    """
    import torch

    factor, low, high, original = float(divisors.max()), 1.0, 4.0, 8192
    exponents = torch.arange(0, config["head_dim"], 2, dtype=torch.float64) / config["head_dim"]
    wavelengths = 2 * math.pi * config["rope_theta"] ** exponents
    ramp = ((original / wavelengths - low) / (high - low)).clamp(0, 1)
    expected = 1 / ((1 - ramp) / factor + ramp)
    if divisors.shape != expected.shape or not torch.allclose(divisors.double(), expected, rtol=1e-4):
        raise ValueError("'rope_freqs.weight' is not a llama3 rotary scaling; no other kind is handled")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _refuse(given: dict[str, Any], prefix: str) -> None:
    if given.get("expert_count"):
        raise ValueError(
            f"{prefix + 'expert_count'!r} is {given['expert_count']}: no GGUF mixture of experts is read"
        )
    if given.get("rope.scaling.type", "none") not in ("none", "linear"):
        raise ValueError(
            f"{prefix + 'rope.scaling.type'!r} is {given['rope.scaling.type']!r}; 'linear' is handled"
        )
    for key, value in given.items():
        if key not in _FIELDS.keys() | _CHECKED | _SCALING:
            raise ValueError(f"the GGUF field {prefix + key!r} = {value!r} is not handled")


def _one(key: str, value: Any) -> Any:
    import numpy as np

    if isinstance(value, list):
        if len(set(value)) != 1:
            raise ValueError(f"{key!r} differs between layers; that is not handled")
        value = value[0]
    if isinstance(value, float):  # stored as float32: the shortest decimal that gives it, 1e-05 for 9.99…e-06
        return float(str(np.float32(value)))
    return value
