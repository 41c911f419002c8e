"""What is asked of TransformerLens's HookedTransformer and of ours, in the same words: `record.py` keeps its answers.

Only torch is imported here, so that the script runs where TransformerLens 2.18 is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

D_VOCAB, N_CTX = 23, 12
COMMON = {
    "n_layers": 2,
    "d_model": 12,
    "n_ctx": N_CTX,
    "d_head": 4,
    "n_heads": 4,
    "d_mlp": 12,
    "d_vocab": D_VOCAB,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {**COMMON, "act_fn": "gelu_new", "normalization_type": "LN"},
    "llama": {
        **COMMON, "act_fn": "silu", "normalization_type": "RMS", "positional_embedding_type": "rotary",
        "rotary_dim": 4, "gated_mlp": True, "n_key_value_heads": 2, "eps": 1e-6,
    },
    "parallel": {
        **COMMON, "act_fn": "gelu", "normalization_type": "LN", "positional_embedding_type": "rotary",
        "rotary_dim": 2, "parallel_attn_mlp": True, "rotary_adjacent_pairs": True,
    },
    "solu": {**COMMON, "act_fn": "solu_ln", "normalization_type": "LN"},
    "attn_only": {**COMMON, "attn_only": True, "normalization_type": "LN", "d_mlp": None},
}  # fmt: skip
INITIAL = ("gpt2", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal")
WORDS = ["<bos>", "<eos>", "<pad>", *(f"w{i}" for i in range(3, D_VOCAB))]
TEXTS = ["w3 w9 w4", "w5 w6 w7 w8 w9"]


def ids() -> Tensor:
    return torch.randint(3, D_VOCAB, (2, 4), generator=torch.Generator().manual_seed(0))


def noise(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Wide random numbers for every weight: fresh norms and biases would hide mistakes.

    Gated MLPs have no `b_in` in any checkpoint; TransformerLens adds it after the gate.
    """
    generator = torch.Generator().manual_seed(3)
    floats = {name: x for name, x in weights.items() if not name.endswith(("mask", "IGNORE", "_sin", "_cos"))}
    made = {name: torch.randn(x.shape, generator=generator) * 0.4 for name, x in sorted(floats.items())}
    gated = any(name.endswith("W_gate") for name in made)
    return {name: x * 0 if gated and name.endswith("mlp.b_in") else x for name, x in made.items()}


Found = dict[str, Tensor]


def weighed(weights: dict[str, Tensor]) -> Found:
    """One number per weight that tells every entry and its place."""
    return {n: x.double().mul(torch.arange(1, x.numel() + 1).view(x.shape)).sum() for n, x in weights.items()}


def of_runs(model: Any) -> Found:
    """Logits, losses, activations, edits, gradients."""
    tokens = ids()
    both = model(tokens, return_type="both")
    found = {
        "logits": both.logits,
        "loss": both.loss,
        "loss_per_token": model(tokens, return_type="loss", loss_per_token=True),
        "masked_loss": model.loss_fn(both.logits, tokens, torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])),
        "stream": model(tokens, stop_at_layer=1),
    }
    found["started"] = model(found["stream"], start_at_layer=1)
    found["last_block"] = model(found["stream"], start_at_layer=-1, stop_at_layer=None)
    site = "blocks.1.attn.hook_z"
    found["hooked"] = model.run_with_hooks(tokens, fwd_hooks=[(site, zero_head)])
    for name in ("blocks.0.attn.hook_pattern", "blocks.1.ln1.hook_normalized", "ln_final.hook_scale"):
        found[f"edited {name}"] = model.run_with_hooks(tokens, fwd_hooks=[(name, lambda x, hook: x * 1.5)])
    model.add_perma_hook("hook_embed", lambda x, hook: x + 0.1)
    model.add_hook(lambda name: name.endswith("hook_resid_mid"), lambda x, hook: x * 0.9)
    found["standing"] = model(tokens)
    model.reset_hooks()
    found["permanent"] = model(tokens)
    model.reset_hooks(including_permanent=True)
    found["afterwards"] = model(tokens)
    return found


def zero_head(z: Tensor, hook: Any) -> Tensor:
    z = z.clone()
    z[:, :, hook.layer()] = 0
    return z


def of_sites(model: Any) -> Found:
    """Every activation of a run, and its gradient; what is made on demand as well."""
    model.set_use_attn_result(True)
    cache = model.run_with_cache(ids(), return_type="loss", incl_bwd=True)[1]
    found = dict(cache.items())
    model.set_use_attn_result(False)
    model.set_use_split_qkv_input(True)
    split = model.run_with_cache(ids(), names_filter=lambda name: name.endswith("_input"))[1]
    model.set_use_split_qkv_input(False)
    found |= dict(split.items())
    name = "blocks.0.attn.hook_pattern"
    one = model.run_with_cache(ids()[:1], names_filter=name, remove_batch_dim=True, pos_slice=-1)[1]
    return found | {"one pattern": one[name]}


def of_cache(model: Any) -> tuple[Found, dict[str, list[str]]]:
    """Every method of the cache, with what it calls its components."""
    cache = model.run_with_cache(ids())[1]
    mid = not (model.cfg.attn_only or model.cfg.parallel_attn_mlp)
    calls: dict[str, Any] = {
        "accumulated_resid": lambda **o: cache.accumulated_resid(return_labels=True, **o),
        "decompose_resid": lambda **o: cache.decompose_resid(return_labels=True, **o),
        "stack_head_results": lambda **o: cache.stack_head_results(return_labels=True, **o),
        "get_full_resid_decomposition": lambda **o: cache.get_full_resid_decomposition(
            return_labels=True, **o
        ),
    }
    options: dict[str, list[dict[str, Any]]] = {
        "accumulated_resid": [
            {}, {"layer": 1}, {"apply_ln": True}, {"layer": 1, "apply_ln": True, "pos_slice": (1, 3)},
            {"apply_ln": True, "pos_slice": -1},
        ],
        "decompose_resid": [
            {}, {"layer": 1}, {"mode": "attn"}, {"apply_ln": True}, {"incl_embeds": False, "pos_slice": [0, 2]},
            {"layer": 1, "apply_ln": True, "pos_slice": -1},
        ],
        "stack_head_results": [
            {}, {"layer": 1, "incl_remainder": True}, {"apply_ln": True, "pos_slice": -1},
            {"layer": 1, "apply_ln": True, "pos_slice": (0, 2)},
        ],
        "get_full_resid_decomposition": [
            {"expand_neurons": False}, {"layer": 1, "apply_ln": True, "pos_slice": -1, "expand_neurons": False},
        ],
    }  # fmt: skip
    if mid:
        options["accumulated_resid"] += [
            {"incl_mid": True},
            {"layer": 1, "mlp_input": True, "apply_ln": True},
        ]
        options["decompose_resid"] += [{"layer": 1, "mlp_input": True, "apply_ln": True}, {"mode": "mlp"}]
        options["get_full_resid_decomposition"] += [
            {"pos_slice": -1},
            {"layer": 1, "mlp_input": True, "pos_slice": 2},
        ]
    if not model.cfg.attn_only:
        calls["stack_neuron_results"] = lambda **o: cache.stack_neuron_results(return_labels=True, **o)
        options["stack_neuron_results"] = [
            {"layer": 1, "neuron_slice": (2, 7, 2)}, {"layer": 2, "pos_slice": -1, "incl_remainder": True},
            {"layer": 1, "neuron_slice": [3, 5], "apply_ln": True},
        ]  # fmt: skip
    found, labels = {}, {}
    for name, several in options.items():
        for i, option in enumerate(several):
            found[f"{name} {i}"], labels[f"{name} {i}"] = calls[name](**option)
    if not model.cfg.attn_only:
        found["get_neuron_results"] = cache.get_neuron_results(0, neuron_slice=(1, 5), pos_slice=1)
    stack = found["decompose_resid 0"]
    found |= {
        "logit_attrs one": cache.logit_attrs(stack, tokens=4),
        "logit_attrs rows": cache.logit_attrs(stack[..., -1, :], ids()[:, 0], pos_slice=-1),
        "logit_attrs difference": cache.logit_attrs(stack, ids(), incorrect_tokens=ids().flip(0)),
        "logit_attrs slice": cache.logit_attrs(stack, tokens=4, batch_slice=(1, 2)),
        "logit_attrs text": cache.logit_attrs(stack, tokens="w7", incorrect_tokens="w8"),
        "stack_activation": cache.stack_activation("pattern"),
        "stack_activation scale": cache.stack_activation("scale", sublayer_type="ln1"),
        "apply_ln_to_stack": cache.apply_ln_to_stack(stack, 1),
        "sliced": cache.apply_slice_to_batch_dim((1, 2))["resid_post", 1],
        "row": cache.apply_slice_to_batch_dim(1)["resid_post", -1],
        "shorthand": cache["k1"] + cache["k", 1] - cache["k", 1, "attn"],
        "final scale": cache["scale"],
    }
    return found, labels


VIEWS = "W_E W_U b_U W_Q W_K W_V W_O b_Q b_K b_V b_O W_in W_out b_in b_out W_gate W_pos W_E_pos"


def of_weights(model: Any) -> Found:
    """Views of the weights, and what follows from them."""
    without = (
        "W_in W_out b_in b_out W_gate" if model.cfg.attn_only else "" if model.cfg.gated_mlp else "W_gate"
    )
    without += " W_pos W_E_pos" if model.cfg.positional_embedding_type == "rotary" else ""
    found = {name: getattr(model, name) for name in VIEWS.split() if name not in without.split()}
    for mode in "QKV":
        found[f"composition {mode}"] = model.all_composition_scores(mode)
    found |= {
        "QK": model.QK.AB[1, 2],
        "OV": model.OV.AB[0, 3],
        "QK singular": model.QK.svd()[1],
        "OV norm": model.OV.norm(),
        "OV row": model.W_U[:, 3] @ model.OV[1, 2],
        "tokens_to_residual_directions": model.tokens_to_residual_directions(ids()),
        "direction": model.tokens_to_residual_directions("w5"),
    }
    if not model.cfg.attn_only:
        found |= {
            f"accumulated_bias {layer} {mid}": model.accumulated_bias(layer, mlp_input=mid)
            for layer, mid in ((0, False), (1, False), (1, True), (2, False))
        }
        found["accumulated_bias of attention"] = model.accumulated_bias(2, include_mlp_biases=False)
    return found


def of_texts(model: Any) -> tuple[Found, dict[str, Any]]:
    """Tokens, words, generation; logits of texts that are padded."""
    found = {
        "text": model.to_tokens(TEXTS[0]),
        "text alone": model.to_tokens(TEXTS[0], prepend_bos=False),
        "texts": model.to_tokens(TEXTS),
        "texts left": model.to_tokens(TEXTS, padding_side="left"),
        "logits right": model(TEXTS),
        "logits left": model(TEXTS, padding_side="left")[1],
        "loss of a text": model(TEXTS[1], return_type="loss"),
        "generated": model.generate(
            ids(), max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False
        ),
        "generated to the end": model.generate(
            ids(), max_new_tokens=6, do_sample=False, eos_token_id=GREEDY_END, verbose=False
        ),
        "generated again": model.generate(
            ids(),
            max_new_tokens=3,
            temperature=0.0,
            stop_at_eos=False,
            use_past_kv_cache=False,
            verbose=False,
        ),
    }
    words = {
        "to_string": model.to_string(ids()),
        "to_string of one": model.to_string(ids()[0]),
        "to_str_tokens": model.to_str_tokens(TEXTS[0]),
        "to_str_tokens of several": model.to_str_tokens(TEXTS, prepend_bos=False),
        "to_single_token": model.to_single_token("w7"),
        "to_single_str_token": model.to_single_str_token(7),
        "get_token_position": model.get_token_position("w9", TEXTS[0]),
        "get_token_position last": model.get_token_position(5, torch.tensor([5, 3, 5, 4]), mode="last"),
        "generate": model.generate(
            TEXTS[0], max_new_tokens=3, do_sample=False, stop_at_eos=False, verbose=False
        ),
        "all_head_labels": model.all_head_labels(),
    }
    return found, words


GREEDY_END = [7, 9, 11, 13]
"""Ids that end a row here, some of which greedy continuations say."""
