"""Slow and plain definitions of attribution, circuits and patching, to check the fast ones against.

They use only public runs of the model: per-head inputs as leaves of autograd, one patch per run, and a
circuit's receivers rebuilt edge by edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from circuits import Circuit, Pairs
from circuits.graph import Graph
from circuits.metrics import get_metric
from lens.config import Experts, Rotary
from lens.model import Transformer
from lens.taps import Taps

ROTARY = (Rotary(dim=4), Rotary(dim=4))
KINDS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "grouped": {"n_kv_heads": 2, "norm": "rms", "rotary": ROTARY, "gated": True, "act_fn": "silu"},
    "parallel": {"parallel": True},
    "parallel, one norm": {"parallel": True, "shared_norm": True},
    "sandwich": {"norm": "rms", "norm_placement": frozenset({"in", "out"}), "n_kv_heads": 2},
    "output norms": {"norm": "rms", "norm_placement": frozenset({"out"}), "qk_norm": "all"},
    "experts": {"experts": Experts(n=3, top_k=2), "gated": True, "norm": "rms"},
    "attention only": {"d_mlp": None},
    "no norm, biases": {"norm": "none", "attn_bias": frozenset("qkvo")},
    "capped, windows": {"attn_softcap": 3.0, "windows": (3, None), "qk_norm": "head", "norm": "rms"},
}
"""Overrides of `StackConfig` that make one model of each kind of block."""


def pairs_for(model: Transformer, n: int = 4, length: int = 7, first: int = 3, padded: bool = False) -> Pairs:
    """Random pairs that differ at position `first` and at a later one."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randint(0, model.cfg.d_vocab, shape, generator=generator)

    clean = draw(n, length)
    corrupt = clean.clone()
    for position in (first, length - 2):
        corrupt[:, position] = (
            clean[:, position] + 1 + draw(n) % (model.cfg.d_vocab - 1)
        ) % model.cfg.d_vocab
    mask = None
    if padded:
        mask = torch.ones(n, length, dtype=torch.bool)
        mask[1, -1:], mask[2, -3:] = False, False
    return Pairs(clean, corrupt, draw(n), draw(n), attention_mask=mask)


def measure(model: Transformer, pairs: Pairs, ids: Tensor, taps: Taps | None = None) -> Tensor:
    """The logit difference of each pair, [n], by one full run."""
    options: dict[str, Any] = {} if taps is None else {"taps": taps}
    logits = model(ids, attention_mask=pairs.attention_mask, **options)
    return get_metric("logit_diff")(logits[torch.arange(len(pairs)), pairs.ends], pairs)


def outputs(model: Transformer, graph: Graph, pairs: Pairs, ids: Tensor) -> list[Tensor]:
    """Every sender's contribution to the stream in one plain run, in the graph's order."""
    names = [
        n for n in ("result", "mlp_out", "ln1_post.hook_scale") if any(n in site for site in model.sites)
    ]
    _, cache = model.run_with_cache(
        ids, ["blocks.0.hook_resid_pre", *names], attention_mask=pairs.attention_mask
    )
    out = [cache["resid_pre", 0]]
    for layer in range(model.cfg.n_layers):
        norm = model.block(layer).ln1_post
        for head in range(graph.n_heads):
            share = cache["result", layer][:, :, head]
            out.append(
                share if norm is None else norm.linear(share, cache[f"blocks.{layer}.ln1_post.hook_scale"])
            )
        if graph.mlp:
            out.append(cache["mlp_out", layer])
    return out


def input_site(graph: Graph, receiver: int) -> tuple[str, int | None]:
    """The site of a receiver's input, and its place on the head axis."""
    node = graph.receiver_nodes[receiver]
    if node.kind == "logits":
        return f"blocks.{graph.n_layers - 1}.hook_resid_post", None
    return f"blocks.{node.layer}.hook_{node.kind}_{'in' if node.kind == 'mlp' else 'input'}", node.head


def edge_attribution(model: Transformer, pairs: Pairs) -> Tensor:
    """EAP with every receiver's input a leaf of its own, [s, r]."""
    graph = Graph.of(model.cfg)
    sites = list(dict.fromkeys(input_site(graph, r)[0] for r in range(graph.n_receivers)))
    taps = Taps(sites, grad=True)
    total = measure(model, pairs, pairs.clean, taps).sum()
    gradients = dict(zip(sites, torch.autograd.grad(total, [taps.seen[s] for s in sites]), strict=True))
    clean, corrupt = (outputs(model, graph, pairs, ids) for ids in (pairs.clean, pairs.corrupt))
    scores = torch.zeros(graph.n_senders, graph.n_receivers, dtype=total.dtype)
    for r in range(graph.n_receivers):
        site, head = input_site(graph, r)
        gradient = gradients[site] if head is None else gradients[site][:, :, head]
        for s in range(int(graph.reach[r])):
            scores[s, r] = ((corrupt[s] - clean[s]) * gradient).sum() / len(pairs)
    return scores


def patch_edge(model: Transformer, pairs: Pairs, sender: int, receiver: int, share: float) -> float:
    """The real change of the mean metric when one edge is moved `share` of the way to its corrupt value."""
    graph = Graph.of(model.cfg)
    clean, corrupt = (outputs(model, graph, pairs, ids) for ids in (pairs.clean, pairs.corrupt))
    site, head = input_site(graph, receiver)
    moved = share * (corrupt[sender] - clean[sender])

    def edit(x: Tensor) -> Tensor:
        if head is None:
            return x + moved
        x = x.clone()
        x[:, :, head] += moved
        return x

    patched = measure(model, pairs, pairs.clean, Taps(edits={site: edit}))
    return float((patched - measure(model, pairs, pairs.clean)).mean())


def circuit_metric(model: Transformer, pairs: Pairs, circuit: Circuit) -> Tensor:
    """The metric of a circuit, [n]; each receiver's input is put together edge by edge."""
    graph, mask = circuit.graph, pairs.attention_mask
    wrote = outputs(model, graph, pairs, pairs.corrupt)
    before_mlp = "resid_pre" if model.block(0).one_sum else "resid_mid"
    names = {"hook_resid_pre", f"hook_{before_mlp}", f"blocks.{graph.n_layers - 1}.hook_resid_post"}
    _, read = model.run_with_cache(pairs.corrupt, sorted(names), attention_mask=mask)
    now: dict[int, Tensor] = {}

    def assemble(stream: Tensor, receiver: int) -> Tensor:
        for s in range(int(graph.reach[receiver])):
            if circuit.mask[s, receiver]:
                stream = stream + now[s] - wrote[s]
        return stream

    def reader(stream: Tensor, columns: slice, heads: bool):
        def edit(_: Tensor) -> Tensor:
            inputs = [assemble(stream, r) for r in range(columns.start, columns.stop)]
            return torch.stack(inputs, 2) if heads else inputs[0]

        return edit

    edits: dict[str, Any] = {"blocks.0.hook_resid_pre": lambda x: now.update({0: x})}
    for layer in range(graph.n_layers):
        site, heads, norm = f"blocks.{layer}.hook_", graph.head_senders(layer), model.block(layer).ln1_post
        for kind in ("q", "k", "v"):
            columns = graph.receiver_slice(kind, layer)
            edits[f"{site}{kind}_input"] = reader(read["resid_pre", layer], columns, heads=True)
        edits[f"blocks.{layer}.attn.hook_result"] = lambda x, heads=heads: now.update(
            {s: x[:, :, h] for h, s in enumerate(range(heads.start, heads.stop))}
        )
        if norm is not None:
            edits[f"blocks.{layer}.ln1_post.hook_scale"] = lambda scale, heads=heads, norm=norm: now.update(
                {s: norm.linear(now[s], scale) for s in range(heads.start, heads.stop)}
            )
        if graph.mlp:
            columns = graph.receiver_slice("mlp", layer)
            edits[f"{site}mlp_in"] = reader(read[before_mlp, layer], columns, heads=False)
            edits[f"{site}mlp_out"] = lambda x, s=heads.stop: now.update({s: x})
    last = f"blocks.{graph.n_layers - 1}.hook_resid_post"
    edits[last] = reader(read[last], graph.receiver_slice("logits"), heads=False)
    return measure(model, pairs, pairs.clean, Taps(edits=edits))


def patched_metric(
    model: Transformer, pairs: Pairs, corrupt: Mapping[str, Tensor], site: str, index: tuple[slice | int, ...]
) -> Tensor:
    """The metric with `activation[index]` at one site given its corrupt value, [n], by one full run."""

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[index] = corrupt[site][index]
        return x

    return measure(model, pairs, pairs.clean, Taps(edits={site: edit}))
