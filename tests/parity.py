"""Hugging Face's numbers and ours, side by side, on the specimens of `tests/zoo.py`.

Errors are relative to the largest value of the oracle's tensor, over positions that are not padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lens.families
from lens import images
from lens.family import read
from lens.inputs import ModelInputs
from lens.mixers._chunks import Chunked
from lens.mixers.big_bird import BigBird
from lens.model import Transformer
from lens.registry import names
from lens.sites import Site
from tests import mixers, reformer_oracle, zoo

FAMILIES = names(lens.families)
SPECIMENS = [(family, name) for family in FAMILIES for name in zoo.ZOO.get(family, {})]
CLOSE, EXACT = 1e-5, 1e-10
N_POS, N_SOURCE = 13, 9

MIXERS = [("mixers", f"{mixer}-{name}") for mixer, name in mixers.NAMES]

each_specimen = pytest.mark.parametrize(("family", "name"), SPECIMENS, ids=[f"{f}-{n}" for f, n in SPECIMENS])


each_model = pytest.mark.parametrize(
    ("family", "name"), [*SPECIMENS, *MIXERS], ids=[f"{f}-{n}" for f, n in [*SPECIMENS, *MIXERS]]
)


@cache
def ours(family: str, name: str, dtype: torch.dtype = torch.float32) -> Transformer:
    """A specimen of `tests/zoo.py`, read as a checkpoint is; or one of `tests/mixers.py`, which have no family."""
    if family == "mixers":
        return mixers.model(*name.split("-"), dtype)
    hf = zoo.hugging_face(family, name, dtype)
    return Transformer.from_state(*read(hf.config.to_dict(), hf.state_dict()))


def prompts(n: int = 3) -> Tensor:
    return torch.randint(3, zoo.D_VOCAB, (n, N_POS), generator=torch.Generator().manual_seed(1))


def inputs(
    model: Transformer, ids: Tensor, real: Tensor | None = None, row: int | None = None
) -> ModelInputs:
    """Everything that a model reads, such as token types where it has several. Of one row, or of all."""
    patches = model.cfg.embed.patches
    if patches is not None:
        shape = (len(ids), patches.n_channels, *patches.image_size)
        image = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=model.dtype)
        return ModelInputs(image=image)
    if images.reads(model.cfg):
        return ModelInputs(source=_image(model, len(ids), real is not None, row))
    if model.cfg.embed.empty:
        source = _source(model, real, len(ids))
        assert source.ids is not None
        if row is not None:
            kept = slice(None) if source.mask is None else source.mask[row]
            source = ModelInputs(ids=source.ids[row, kept][None])
        return model.to_inputs(ModelInputs(source=source))
    place, more = torch.arange(ids.shape[1]).expand(ids.shape), {}
    if model.cfg.embed.n_types > 1:
        more["types"] = (place > 5).long()
    if model.cfg.stack.global_tokens == "asked":
        more["global_tokens"] = (place == 5) | (place == 1)
    elif model.cfg.stack.global_tokens == "first":  # what a run does by itself, said
        more["global_tokens"] = place == 0 if real is None else real.long().cumsum(-1) * real == 1
    if model.cfg.pooler is not None and model.cfg.pooler.at != "first":
        ids = _ended(ids, real, model.cfg.pooler.token)
    source = None if model.cfg.source is None else _source(model, real, len(ids))
    if row is None:
        return ModelInputs(ids=ids, mask=real, source=source, **more)
    keep = slice(None) if real is None else real[row]
    alone = ModelInputs(ids=ids[row, keep][None], **{name: x[row, keep][None] for name, x in more.items()})
    if source is None:
        return alone
    if source.mel is not None:
        return replace(alone, source=ModelInputs(mel=source.mel[row, None]))
    assert source.ids is not None
    kept = slice(None) if source.mask is None else source.mask[row]
    return replace(alone, source=ModelInputs(ids=source.ids[row, kept][None]))


def _ended(ids: Tensor, real: Tensor | None, token: int | None) -> Tensor:
    """The same with the token that ends a text as its last but one, and nothing in the padding."""
    real = torch.ones_like(ids, dtype=torch.bool) if real is None else real
    left = real.flip(-1).cumsum(-1).flip(-1)  # how many tokens are real from here on
    ids = ids if token is None else ids.masked_fill((left == 2) & real, token)
    return ids * real


def _source(model: Transformer, real: Tensor | None, n: int) -> ModelInputs:
    """Of another length than the target, and padded otherwise."""
    mel = model.cfg.source.embed.mel if model.cfg.source is not None else None
    if mel is not None:
        shape = (n, mel.n_mels, mel.n_frames)
        frames = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return ModelInputs(mel=frames.to(model.dtype))
    ids = torch.randint(3, zoo.D_VOCAB, (n, N_SOURCE), generator=torch.Generator().manual_seed(2))
    if n == 3 and real is not None:
        return ModelInputs(ids=ids, mask=torch.arange(N_SOURCE) < N_SOURCE - torch.tensor([[3], [0], [5]]))
    return ModelInputs(ids=ids)


MAP = (3, 4)
PLACES = [(3, 4), (2, 3), (1, 4)]
"""Rows and columns of feature maps that are real: those of the first three images."""


def _image(model: Transformer, n: int, pads: bool, row: int | None) -> ModelInputs:
    """Images; or where they are padded, their features, of which one row may be cut out."""
    assert model.cfg.source is not None and model.cfg.source.embed.features is not None
    front, generator = model.cfg.source.embed.features, torch.Generator().manual_seed(3)
    if not pads:
        image = torch.randn(n, front.backbone.n_channels, 96, 128, generator=generator, dtype=torch.float64)
        return ModelInputs(image=image.to(model.dtype))
    features = torch.randn(n, front.width, *MAP, generator=generator, dtype=torch.float64).to(model.dtype)
    if row is not None:
        rows, columns = PLACES[row]
        return ModelInputs(features=features[row, None, :, :rows, :columns])
    mask = torch.zeros(n, *MAP, dtype=torch.bool)
    for i, (rows, columns) in enumerate(PLACES[:n]):
        mask[i, :rows, :columns] = True
    return ModelInputs(features=features, mask=mask)


def sides(model: Transformer) -> tuple[str, ...]:
    """Where Hugging Face can be given padding: tables of positions of encoder–decoders, and experts of limited
    capacity, count it on the left."""
    experts = model.cfg.stack.experts
    if model.cfg.embed.patches is not None:
        return ("none",)
    of_whole_texts = (BigBird, Chunked)  # whose blocks or chunks Hugging Face counts with padding
    if any(isinstance(mixer, of_whole_texts) for mixer in model.cfg.stack.mixers):
        return ("none",)
    if not model.cfg.stack.attends:  # Hugging Face's recurrences read padding: as zeros, or as tokens
        return ("none", "right")
    counts = model.cfg.source is not None and model.cfg.embed.n_positions is not None
    counts = counts or (experts is not None and experts.capacity is not None)
    return ("none", "right") if counts else ("none", "right", "left")


def explicit(model: Transformer) -> list[str]:
    """Sites that make a run take its steps one by one: patterns, or what a mixer makes on request."""
    patterns = [site for site in model.sites if site.endswith("attn.hook_pattern")]
    return patterns or [name for name, site in model.sites.items() if site.extra and ".mixer." in name]


def ends(model: Transformer) -> list[str]:
    """The sites that a run ends in: logits of all heads, and the pooled vector where no head reads it."""
    names = ("classifier.hook_logits", "boxes.hook_boxes", "hook_logits")
    heads = [site for site in names if site in model.sites]
    classifier = model.cfg.classifier
    read = classifier is not None and classifier.of == "text"
    return heads + [site for site in ("pooler.hook_pooler_out",) if site in model.sites and not read]


def matters(model: Transformer, site: Site) -> bool:
    """Does this site reach an output? After a last layer whose first token alone is read, and sees everything,
    what other tokens see does not. And in the first layer of a stream that begins empty, all values are the same."""
    dead = model.cfg.stack.global_tokens == "first" and site.layer == model.cfg.n_layers - 1
    looks = site.kind.endswith(("attn.hook_q", "attn.hook_k", "attn.hook_attn_scores", "q_input", "k_input"))
    same = model.cfg.embed.empty and site.layer == 0 and site.part == "block" and ".cross" not in site.kind
    return not dead and not (same and looks)


def outputs(model: Transformer, given: Any, wanted: Any = (), **options: Any) -> dict[str, Tensor]:
    """All that one run gives: what is returned, and every head."""
    out, cache = model.run_with_cache(given, [*wanted, *ends(model)], **options)
    return {"output": out, **cache}


def padding(side: str) -> Tensor | None:
    """True where a token is real: rows with 0, 4 and 9 positions of padding."""
    if side == "none":
        return None
    place = torch.arange(N_POS).expand(3, -1)
    n = torch.tensor([[0], [4], [9]])
    return place < N_POS - n if side == "right" else place >= n


@dataclass
class Seen:
    """What one run of one model shows, by name."""

    tensors: dict[str, Tensor]

    def by_position(self) -> Seen:
        """Without what there is one of per text."""
        return Seen({name: x for name, x in self.tensors.items() if x.ndim > 2})

    def error(self, oracle: Seen, real: Tensor | None, source: Any = None) -> float:
        """The largest error of any tensor, relative to its scale, over rows that are not padding."""
        assert self.tensors.keys() == oracle.tensors.keys()
        errors = []
        for name, x in self.tensors.items():
            of_source = name.startswith(("encoder", "source"))
            rows = source.mask if of_source and source is not None else real
            rows = rows.flatten(1) if rows is not None else None
            errors.append(relative_error(x, oracle.tensors[name], rows))
        return max(errors)


def relative_error(x: Tensor, oracle: Tensor, real: Tensor | None = None) -> float:
    assert x.shape == oracle.shape
    if x.ndim == 4:  # patterns: [b, h, p, k] -> [b, p, h, k]
        x, oracle = x.transpose(1, 2), oracle.transpose(1, 2)
    if real is not None and x.shape[:2] == real.shape:
        x, oracle = x[real], oracle[real]
    return ((x - oracle).abs().max() / oracle.abs().max().clamp(min=1e-30)).item()


@contextmanager
def watched(modules: Any, seen: dict[str, Tensor]) -> Iterator[None]:
    """Record the output of each Hugging Face layer as resid_post."""

    def record(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[f"resid_post {layer}"] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(record(layer)) for layer, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def oracle(hf: Any, given: ModelInputs, attention: str) -> Seen:
    """Hugging Face's outputs, residual stream around every block, and (eager) patterns."""
    if hf.config.model_type == "perceiver":
        return _oracle_of_latents(hf, given)
    if hf.config.model_type == "detr":
        return _oracle_of_objects(hf, given, attention)
    if given.source is not None:
        return _oracle_of_two(hf, given, attention)
    if hf.config.model_type == "reformer":
        return Seen(reformer_oracle.seen(hf, given))
    if hf.config.model_type == "swin":
        return _oracle_of_windows(hf, given, attention)
    if hf.config.model_type == "clip":  # the model of texts; that of images is a specimen of its own
        seen = oracle(hf.text_model, given, attention).tensors
        return Seen({**seen, "pooled": hf.text_projection(seen["pooled"])})
    n_layers, layers = (
        hf.config.num_hidden_layers,
        next(m for m in hf.modules() if isinstance(m, nn.ModuleList)),
    )
    seen: dict[str, Tensor] = {}
    options: dict[str, Any] = {"output_hidden_states": True, "output_attentions": attention == "eager"}
    if hf.can_generate():
        options["use_cache"] = False
    if given.types is not None:
        options["token_type_ids"] = given.types
    if given.global_tokens is not None:
        options["global_attention_mask"] = given.global_tokens.long()
    if given.mask is not None:
        options["attention_mask"] = given.mask.long()
        before = hf.config.pad_token_id + 1 if hf.base_model_prefix in ("roberta", "longformer") else 0
        options["position_ids"] = (given.mask.long().cumsum(-1) - 1).clamp(min=0) + before
    hf.set_attn_implementation(attention)
    try:
        with watched(layers, seen), torch.no_grad():
            out = hf(given.given, **options)
    finally:
        hf.set_attn_implementation("eager")
    # some layers are run several times, and some see padding that is taken away again
    if len(layers) != n_layers or (given.image is None and seen["resid_post 0"].shape[1] != given.n):
        seen = {f"resid_post {layer}": x for layer, x in enumerate(out.hidden_states[1:])}
    seen |= {name: out[theirs] for theirs, name in OUTPUTS.items() if out.get(theirs) is not None}
    if hf.config.model_type == "clip_vision_model":  # of which the library normalises the class token's alone
        norm = next(m for name, m in hf.named_modules() if name.endswith("post_layernorm"))
        seen["logits"] = norm(out.last_hidden_state)
    if "start_logits" in out:
        seen["logits"] = torch.stack([out.start_logits, out.end_logits], -1)
    if _recurrent(hf):  # streams after each block; the embedding is not told
        seen |= {f"resid_pre {layer + 1}": x for layer, x in enumerate(out.hidden_states[: n_layers - 1])}
    else:
        seen |= {f"resid_pre {layer}": x for layer, x in enumerate(out.hidden_states[:n_layers])}
    if attention == "eager" and not _recurrent(hf):
        patterns, places = out.attentions, range(n_layers)
        if hf.config.model_type == "jamba":
            places = [i for i, kind in enumerate(hf.config.layers_block_type) if kind == "attention"]
        if hf.config.model_type == "longformer":
            everywhere = out.get("global_attentions") or [None] * n_layers
            patterns = [_unbanded(x, y, given) for x, y in zip(patterns, everywhere, strict=True)]
        if hf.config.model_type == "big_bird" and hf.config.attention_type == "block_sparse":
            patterns = [_counted(x, given.n, hf.config) for x in patterns]
        seen |= {f"pattern {layer}": x for layer, x in zip(places, patterns, strict=True)}
    return Seen(seen)


def _recurrent(hf: Any) -> bool:
    """Is there no attention in any layer?"""
    return hf.config.model_type in ("mamba", "mamba2", "rwkv")


def _counted(pattern: Tensor, n: int, hf: Any) -> Tensor:
    """BigBird's patterns with all that the first block gets between the ends; of equal shares, one is told."""
    first, last = hf.block_size, (pattern.shape[-1] - 1) // hf.block_size * hf.block_size
    times = torch.ones_like(pattern)
    times[:, :, first:last, :first] = 1 + hf.num_random_blocks
    return (pattern * times)[:, :, :n, :n]


def _oracle_of_windows(hf: Any, given: ModelInputs, attention: str) -> Seen:
    """The same of Swin, of which the library tells no more than each stage."""
    seen = dict[str, Tensor]()
    layers = [m for m in hf.modules() if type(m).__name__ == "SwinLayer"]

    def record(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[f"resid_pre {layer}"], seen[f"resid_post {layer}"] = args[0], output[0]
            if attention == "eager":
                seen[f"pattern {layer}"] = _on_the_map(module, output[1], *args[1])

        return hook

    handles = [module.register_forward_hook(record(layer)) for layer, module in enumerate(layers)]
    hf.set_attn_implementation(attention)
    try:
        with torch.no_grad():
            out = hf(given.image)
    finally:
        hf.set_attn_implementation("eager")
        for handle in handles:
            handle.remove()
    if hf.base_model is hf:
        return Seen({**seen, "logits": out.last_hidden_state, "pooled": out.pooler_output})
    return Seen({**seen, "logits": out.logits})


def _on_the_map(layer: Any, pattern: Tensor, rows: int, columns: int) -> Tensor:
    """Patterns of windows as one of the map, with columns for padding behind it: right of it, then below."""
    w, shift = layer.window_size, layer.shift_size
    down, across = -(-rows // w) * w, -(-columns // w) * w
    places = [(y, x) for y in range(rows) for x in range(columns)]
    places += [(y, x) for y in range(rows) for x in range(columns, across)]
    places += [(y, x) for y in range(rows, down) for x in range(across)]
    windows: dict[int, list[tuple[int, int]]] = {}  # of each, cells and their places in it
    for cell, place in enumerate(places):
        y, x = (place[0] - shift) % down, (place[1] - shift) % across
        windows.setdefault(y // w * (across // w) + x // w, []).append((cell, y % w * w + x % w))
    by_window = pattern.unflatten(0, (-1, len(windows)))
    whole = pattern.new_zeros(len(by_window), pattern.shape[1], len(places), len(places))
    for window, cells in windows.items():
        for q, i in cells:
            for k, j in cells:
                whole[:, :, q, k] = by_window[:, window, :, i, j]
    return whole[:, :, : rows * columns]


def _oracle_of_latents(hf: Any, given: ModelInputs) -> Seen:
    """Perceiver's, of which the library names patterns by what is read, and streams after the first block only."""
    source = given.source
    assert isinstance(source, ModelInputs)
    mask = None if source.mask is None else source.mask.long()
    with torch.no_grad():
        out = hf(source.ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    n, of = hf.config.num_self_attends_per_block, hf.perceiver
    streams = [x for i, x in enumerate(out.hidden_states) if (i + 1) % (n + 1)]
    latents = of.embeddings.latents.expand(len(source.ids), -1, -1)  # type: ignore[arg-type]
    queries = of.decoder.output_position_encodings.position_embeddings.expand(len(latents), -1, -1)
    reads, says = out.cross_attentions
    seen = {"logits": out.logits, "source": out.hidden_states[-1], "decoder resid_pre 0": queries}
    seen |= {f"encoder resid_pre {layer}": x for layer, x in enumerate([latents, *streams])}
    seen |= {f"encoder pattern {layer}": x for layer, x in enumerate([reads, *out.attentions])}
    return Seen({**seen, "decoder pattern 0": says})


def _oracle_of_two(hf: Any, given: ModelInputs, attention: str) -> Seen:
    """The same of an encoder–decoder, with the patterns of cross-attention."""
    source, seen = given.source, dict[str, Tensor]()
    assert isinstance(source, ModelInputs)
    options: dict[str, Any] = {"output_hidden_states": True, "output_attentions": attention == "eager"}
    if source.mask is not None:
        options["attention_mask"] = source.mask.long()
    if given.mask is not None:
        options["decoder_attention_mask"] = given.mask.long()
    hf.set_attn_implementation(attention)
    try:
        with torch.no_grad():
            out = hf(source.given, decoder_input_ids=given.ids, use_cache=False, **options)
    finally:
        hf.set_attn_implementation("eager")
    seen["logits"], seen["source"] = out.logits, out.encoder_last_hidden_state
    for side in ("encoder", "decoder"):
        streams = out[f"{side}_hidden_states"][:-1]
        seen |= {f"{side} resid_pre {layer}": x for layer, x in enumerate(streams)}
    if attention == "eager":
        for kind in ("encoder", "decoder", "cross"):
            seen |= {f"{kind} pattern {layer}": x for layer, x in enumerate(out[f"{kind}_attentions"])}
    return Seen(seen)


def _oracle_of_objects(hf: Any, given: ModelInputs, attention: str) -> Seen:
    """The same of DETR, whose backbone stands aside where features are given."""
    source, base = given.source, hf.base_model
    assert isinstance(source, ModelInputs)
    image = torch.zeros(source.n_rows, 3, 2, 2) if source.image is None else source.image
    options: dict[str, Any] = {"output_hidden_states": True, "output_attentions": attention == "eager"}
    own = base.backbone.forward
    if source.features is not None:
        mask = torch.ones(source.features[:, 0].shape).bool() if source.mask is None else source.mask
        base.backbone.forward = lambda *given: [(source.features, mask)]
        image = image.to(source.features.dtype)
    hf.set_attn_implementation({"": attention, "backbone_config": "eager"})
    try:
        with torch.no_grad():
            out = hf(image, **options)
    finally:
        base.backbone.forward = own
        hf.set_attn_implementation("eager")
    detects = out.get("pred_boxes") is not None
    seen = {"logits": out.logits, "boxes": out.pred_boxes} if detects else {"logits": out.last_hidden_state}
    seen["source"] = out.encoder_last_hidden_state
    for side in ("encoder", "decoder"):
        streams = out[f"{side}_hidden_states"][:-1]
        seen |= {f"{side} resid_pre {layer}": x for layer, x in enumerate(streams)}
    if attention == "eager":
        kinds = {
            "encoder": "encoder_attentions",
            "decoder": "decoder_attentions",
            "cross": "cross_attentions",
        }
        seen |= {f"{a} pattern {layer}": x for a, b in kinds.items() for layer, x in enumerate(out[b])}
    return Seen(seen)


def _shown_of_two(model: Transformer, given: ModelInputs, attention: str) -> Seen:
    assert model.cfg.source is not None
    sizes = {"encoder": model.cfg.source.stack.n_layers, "decoder": model.cfg.n_layers}
    names = {
        f"{side} resid_pre {layer}": f"{side}.{layer}.hook_resid_pre"
        for side, n in sizes.items()
        for layer in range(n)
    }
    if attention == "eager":
        paths = {"encoder": "encoder.{}.attn", "decoder": "decoder.{}.attn", "cross": "decoder.{}.cross_attn"}
        for kind, path in paths.items():
            n = sizes["encoder" if kind == "encoder" else "decoder"]
            sites = {layer: f"{path.format(layer)}.hook_pattern" for layer in range(n)}
            names |= {f"{kind} pattern {layer}": site for layer, site in sites.items() if site in model.sites}
    logits, cache = model.run_with_cache(given, [*names.values(), *ends(model)])
    source = model.encode(given).stream
    names |= {"boxes": "boxes.hook_boxes"} if model.cfg.boxes else {}
    return Seen({"logits": logits, "source": source, **{ours: cache[site] for ours, site in names.items()}})


def _unbanded(band: Tensor, everywhere: Tensor | None, given: ModelInputs) -> Tensor:
    """Longformer's patterns as squares: a column per global token, then the keys around each query."""
    n, (b, h) = given.n, band.shape[:2]
    pattern = band.new_zeros(b, h, n, n)
    n_global = 0 if everywhere is None else everywhere.shape[-1]
    reach = (band.shape[-1] - n_global) // 2
    for row in range(b):
        real = torch.ones(n).bool() if given.mask is None else given.mask[row]
        chosen = torch.zeros(n).bool() if given.global_tokens is None else given.global_tokens[row] & real
        seers = chosen.nonzero()[:, 0].tolist()
        for p in range(n):
            near = [(k, n_global + reach + k - p) for k in range(n) if abs(k - p) <= reach]
            for k, column in [*near, *((k, i) for i, k in enumerate(seers))]:
                pattern[row, :, p, k] += band[row, :, p, column]
        for i, p in enumerate(seers):
            assert everywhere is not None
            pattern[row, :, p] = everywhere[row, :, :n, i]
    return pattern


OUTPUTS = {
    "logits": "logits",
    "last_hidden_state": "logits",
    "prediction_logits": "logits",
    "seq_relationship_logits": "classes",
    "sop_logits": "classes",
    "pooler_output": "pooled",
    "text_embeds": "pooled",
    "image_embeds": "pooled",
}
"""Fields of Hugging Face's outputs, and what they are called here."""


def shown(model: Transformer, given: ModelInputs, attention: str) -> Seen:
    """The same of ours: `eager` taps patterns, so attention is explicit; `sdpa` does not."""
    if given.source is not None:
        return _shown_of_two(model, given, attention)
    after = "normalized_resid_post" if "add" in model.cfg.stack.norm_placement else "resid_post"
    wanted = ["resid_pre", after, *(explicit(model) if attention == "eager" else [])]
    patterns = {name.split(".")[1] for name in model.sites if name.endswith("attn.hook_pattern")}
    first = 0 if patterns or model.cfg.stack.stages else 1  # see `oracle`
    out, cache = model.run_with_cache(given, [*wanted, *ends(model)])
    seen = {"logits": out}
    if model.cfg.unembed is not None and model.cfg.classifier is not None:
        seen["classes"] = cache["classifier.hook_logits"]
    if ends(model) == ["pooler.hook_pooler_out"]:
        seen["pooled"] = cache["pooler.hook_pooler_out"]
    for layer in range(model.cfg.n_layers):
        if layer >= first:
            seen[f"resid_pre {layer}"] = cache["resid_pre", layer]
        seen[f"resid_post {layer}"] = cache[after, layer]
        if attention == "eager" and str(layer) in patterns:
            seen[f"pattern {layer}"] = cache["pattern", layer]
    return Seen(seen)


def worst(model: Transformer, hf: Any, side: str = "none", attention: str = "eager") -> float:
    """The largest relative error of ours against Hugging Face in one setting.

    What it says of a whole text it reads at position 0, which here is padding where that is at the left.
    """
    given = inputs(model, prompts(), padding(side))
    found, expected = shown(model, given, attention), oracle(hf, given, attention)
    if side == "left":
        found, expected = found.by_position(), expected.by_position()
    return found.error(expected, given.mask, given.source)


def has_sdpa(hf: Any) -> bool:
    return bool(hf._supports_sdpa)
