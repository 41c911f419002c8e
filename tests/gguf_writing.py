"""GGUF files for tests, written from tiny Hugging Face models as llama.cpp's converter would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

FORWARD = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    if stem.startswith("model.layers."):
        layer, _, rest = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{FORWARD[rest]}.{leaf}"
    return f"{FORWARD[stem]}.{leaf}"


def converted(architecture: str, name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """What llama.cpp's converter does to a tensor."""
    if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor + 1 if architecture == "gemma" and name.endswith("norm.weight") else tensor


def write_gguf(
    path: Path,
    model: Any,
    architecture: str = "llama",
    *,
    kind: str = "F32",
    more: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    tokenizer: bool = True,
) -> Path:
    """Write `model` (a transformers model) to `path`; `more` adds metadata, `tensors` adds tensors."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        add_byte_level(writer, config.vocab_size)
    for key, value in (more or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint32
        (writer.add_float32 if isinstance(value, float) else add)(key, value)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = converted(architecture, name, tensor, config).float().numpy()
        kept = kind if values.ndim > 1 else "F32"
        as_kind = gguf.GGMLQuantizationType[kept]
        writer.add_tensor(gguf_name(name), gguf.quantize(values, as_kind), raw_dtype=as_kind)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def bytes_in_gpt2_spelling() -> list[str]:
    """The 256 characters that stand for bytes, from the tokenizers package."""
    import tokenizers

    return sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


MERGES = ["Ġ t", "h e", "Ġt he", "Ġ a", "i n", "1 2", "Ċ Ċ", "Ġ Ġ", "ĠĠ ĠĠ", "Ã ©"]


def add_byte_level(
    writer: gguf.GGUFWriter, n_vocab: int = 320, *, pre: str = "smollm", add_bos: bool = False
) -> None:
    """A small byte-level tokenizer: two control tokens, all bytes, a few merges."""
    tokens = ["<|start|>", "<|end|>", *bytes_in_gpt2_spelling(), *(m.replace(" ", "") for m in MERGES)]
    tokens += [f"<unused{i}>" for i in range(n_vocab - len(tokens))]
    assert len(tokens) == n_vocab
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    unused = n_vocab - 258 - len(MERGES)
    writer.add_token_types([3, 3, *[1] * (256 + len(MERGES)), *[5] * unused])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(add_bos)
