"""The same weights three times: ours, Hugging Face's, and in TransformerLens's bridge. Nothing comes from a hub."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import lens
from circuits import Pairs, load_task
from lens.family import read, write

EXAMPLES = 8
TINY: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}


@dataclass(frozen=True)
class Twins:
    """One model in all three forms; `bridge` is None where TransformerLens cannot be imported."""

    name: str
    model: lens.Transformer
    hf: Any
    bridge: Any

    def forward(self, ids: Tensor) -> Tensor:
        """Hugging Face's forward with fused attention: the unit of all ratios."""
        with torch.no_grad():
            return self.hf(ids, use_cache=False).logits


@cache
def smollm2() -> lens.Transformer:
    """SmolLM2-135M-Instruct."""
    return lens.load("smollm2", device="cpu", dtype="float32")


@cache
def twins(name: str) -> Twins:
    """`smollm2`, or `tiny`: the same family with random weights, 4 layers of width 128."""
    model = smollm2() if name == "smollm2" else tiny()
    return Twins(name, model, hugging_face(model), bridge(model))


def tiny() -> lens.Transformer:
    """A small Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    hf = LlamaForCausalLM(LlamaConfig(**TINY, vocab_size=2048, num_key_value_heads=2))
    cfg, state = read(hf.config.to_dict(), hf.state_dict())
    return lens.Transformer.from_state(cfg, {name: x.detach().clone() for name, x in state.items()})


def hugging_face(model: lens.Transformer) -> Any:
    """A Hugging Face model on the very weights of ours, with fused attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{k: v for k, v in model.cfg.hf.items() if k not in ("model_type", "architectures")}
    )
    config._attn_implementation = "sdpa"
    state = write(model.cfg, model.state_dict())
    if model.cfg.tied:
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hf = LlamaForCausalLM(config)
        hf.load_state_dict(state, assign=True)
    hf.tie_weights()
    return hf.eval().requires_grad_(False)


def bridge(model: lens.Transformer) -> Any:
    """TransformerLens's bridge around another Hugging Face model on the same weights."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        return None
    tokenizer = model.tokenizer or smollm2().tokenizer
    assert tokenizer is not None
    hf = hugging_face(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hf.config.save_pretrained(folder)
        tokenizer.hf.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, hf_model=hf, device="cpu")


def ioi(corruption: str) -> Pairs:
    """Prompts of indirect object identification for SmolLM2."""
    return load_task("ioi").pairs(smollm2(), n=EXAMPLES, seed=0, corruption=corruption)


def prompts(name: str) -> Tensor:
    """The batch that forwards are measured on: 8 prompts of 14 tokens or so."""
    ids = ioi("abc").clean
    return ids if name == "smollm2" else ids % twins(name).model.cfg.d_vocab
