"""What is asked of TransformerLens's HookedEncoder and HookedEncoderDecoder and of ours, in the same words.

Only torch is imported here, so that it runs where TransformerLens 2.18 is; `record_encoders.py` keeps its answers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

COMMON: dict[str, Any] = {
    "n_layers": 2, "d_model": 12, "n_ctx": 12, "d_head": 4, "n_heads": 3, "d_mlp": 16, "d_vocab": 23, "device": "cpu",
}  # fmt: skip
BERT = {**COMMON, "act_fn": "gelu", "normalization_type": "LN", "attention_dir": "bidirectional", "eps": 1e-6}
T5: dict[str, Any] = {
    **COMMON, "act_fn": "relu", "eps": 1e-6, "attention_dir": "bidirectional", "use_attn_scale": False,
    "positional_embedding_type": "relative_positional_bias", "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16, "decoder_start_token_id": 2, "tie_word_embeddings": True,
    "normalization_type": "RMS",
}  # fmt: skip
WORDS = ["<cls>", "<sep>", "<pad>", "<mask>", *(f"w{i}" for i in range(4, 23))]
TEXTS = ["w4 w9 <mask> w5", "w6 <mask> w8 w9 <mask> w10"]
PAIR = ["w4 w9 w5", "w6 w8"]
GREEDY_END = [7, 9, 11]
Found = dict[str, Tensor]


def ids() -> Tensor:
    return torch.randint(4, 23, (2, 5), generator=torch.Generator().manual_seed(0))


def types() -> Tensor:
    return torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])


def mask() -> Tensor:
    return torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def of_encoder(model: Any, pairs: Any) -> tuple[Found, dict[str, Any]]:
    """Logits, every activation and gradient, edits, weights; and what is said in words. `pairs` reads two texts."""
    tokens, about = ids(), {"token_type_ids": types()}
    found = {
        "logits": model(tokens),
        "typed": model(tokens, **about),
        "masked": model(tokens, return_type="logits", one_zero_attention_mask=mask())[0, :3],
        "stream": model.encoder_output(tokens, types()),
        "embedded": model.embed(tokens, types()),
        "block": model.blocks[0](model.embed(tokens)),
        "masked block": model.blocks[1](
            model.embed(tokens), torch.where(mask() == 1, 0, -torch.inf)[:, None, None]
        )[0, :3],
        "follows": pairs(tokens, token_type_ids=types()),
    }
    stream = found["stream"]
    found |= {
        "mlm_head": model.mlm_head(stream),
        "unembed": model.unembed(stream),
        "pooler": model.pooler(stream),
        "nsp_head": model.nsp_head(stream[:, 0]),
        "W_token_type": model.embed.token_type_embed(types()),
        "pos_embed": model.embed.pos_embed(tokens),
        "tokens": model.embed.embed(tokens),
    }
    for name, change in (
        ("blocks.0.attn.hook_z", lambda z, hook: z * 0.5),
        ("embed.hook_token_type_embed", lambda x, hook: x + 1),
        ("mlm_head.ln.hook_normalized", lambda x, hook: x * 2),
    ):
        found[f"edited {name}"] = model.run_with_hooks(tokens, fwd_hooks=[(name, change)])
    model.add_hook("hook_full_embed", lambda x, hook: x * 0.9)
    found["standing"] = model(tokens)
    model.reset_hooks()
    _, cache = model.run_with_cache(tokens, **about)
    found |= {f"cache/{name}": x for name, x in cache.items()}
    found["cache/ of shorthand"] = cache["pattern", 1]
    _, cache = pairs.run_with_cache(tokens, token_type_ids=types())
    found |= {f"cache/{n}": cache[n] for n in ("pooler.hook_pooler_out", "nsp_head.hook_nsp_out")}
    words = {
        "prediction": model(TEXTS[0], return_type="predictions"),
        "predictions": model(TEXTS, return_type="predictions"),
        "follows": pairs(PAIR, return_type="predictions"),
        "labels": model.all_head_labels(),
    }
    texts = zip(("ids", "types", "mask"), model.to_tokens(TEXTS), strict=True)
    of_pair = zip(("ids", "types", "mask"), pairs.to_tokens(PAIR), strict=True)
    found |= {f"texts {name}": x for name, x in texts} | {f"pair {name}": x for name, x in of_pair}
    found["long"] = model.to_tokens(" ".join(WORDS[4:]))[0]
    return found | {f"views/{name}": x for name, x in of_views(model, True).items()}, words


def of_views(model: Any, positions: bool) -> Found:
    names = ["W_E", "W_U", "b_U", *(f"W_{n}" for n in ("Q", "K", "V", "O", "in", "out"))]
    names += [f"b_{n}" for n in ("Q", "K", "V", "O", "in", "out")] + (
        ["W_pos", "W_E_pos"] if positions else []
    )
    found = {name: getattr(model, name) for name in names}
    return found | {"QK": model.QK.AB, "OV": model.OV.AB}


def of_encoder_decoder(model: Any) -> tuple[Found, dict[str, Any]]:
    """Logits, every activation, edits, weights, continuations; and what is said in words."""
    tokens, start = ids(), torch.full((2, 1), 2)
    begun = torch.cat([start, ids()[:, :3]], 1)
    found = {
        "logits": model(tokens, begun),
        "masked": model(tokens, begun, one_zero_attention_mask=mask()),
        "start": model(tokens, start, return_type="logits"),
        "texts": model(["w4 w9 w5", "w6 w8"]),
        "hooked": model.run_with_hooks(
            tokens, begun, fwd_hooks=[("encoder.1.attn.hook_z", lambda z, hook: z * 0.5)]
        ),
        "hooked norm": model.run_with_hooks(
            tokens, begun, fwd_hooks=[("decoder.0.ln2.hook_normalized", lambda x, hook: x * 0.5)]
        ),
        "embed": model.embed(tokens),
        "ln3": model.decoder[1].ln3(model.embed(tokens)),
        "mlp": model.encoder[0].mlp(model.encoder[0].ln2(model.embed(tokens))),
        "unembed": model.unembed(model.decoder_final_ln(model.embed(tokens))),
    }
    _, cache = model.run_with_cache(tokens, begun)
    found |= {f"cache/{name}": x for name, x in cache.items()}
    found |= {
        "generated": model.generate(
            tokens, one_zero_attention_mask=mask(), max_new_tokens=4, do_sample=False, stop_at_eos=False,
            verbose=False,
        ),
        "generated to the end": model.generate(
            tokens, max_new_tokens=6, do_sample=False, eos_token_id=GREEDY_END, verbose=False
        ),
    }  # fmt: skip
    ids_of, mask_of = model.to_tokens(TEXTS)
    found |= {"texts ids": ids_of, "texts mask": mask_of}
    words = {
        "labels": model.all_head_labels(),
        "generated": model.generate(
            PAIR[0], max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False
        ),
    }
    return found | {f"views/{name}": x for name, x in of_views(model, False).items()}, words
