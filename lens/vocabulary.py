"""The vocabulary: every kind of activation that has a name, its shape, its meaning, and which models have it.

The names are TransformerLens's. This table is the only place where sites are listed; `sites.py` turns it into
the sites of one model, and `python -m lens.glossary` into docs/glossary.md.

Shapes are written in words: batch, pos (query position), frame (of a sound), key (key position), head, kv
(key/value head), d_model, d_head, d_mlp, d_embed, d_vocab, class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Where:
    """Which models have a site, in words and as a test of the part of a configuration that it belongs to.

    Sites of a block are tested on a `StackConfig`, those of the embedding on an `EmbedConfig`, those of the
    ends on the `ModelConfig`.
    """

    words: str
    holds: Callable[[Any], bool]

    def __and__(self, other: Where) -> Where:
        return Where(f"{self.words}, {other.words}", lambda c: self.holds(c) and other.holds(c))


EVERY = Where("every model", lambda c: True)
ATTENDS = Where("attention", lambda c: c.mixer is None)
BY_HEADS = Where("heads that read streams of their own", lambda c: c.mixer is None or c.mixer.by_head)
MLP = Where("an MLP", lambda c: c.d_mlp is not None)
NO_MLP = Where("attention only", lambda c: c.d_mlp is None)
DENSE = Where("one MLP per block", lambda c: c.d_mlp is not None and c.experts is None)
MLP_NORM = Where("a norm behind the activation function", lambda c: c.mlp_norm)
EXPERTS = Where("a mixture of experts", lambda c: c.experts is not None)
SHARED = Where("an expert for all positions", lambda c: c.experts is not None and bool(c.experts.shared))
GATED = Where("gated", lambda c: c.gated)
SEQUENTIAL = Where("MLP after attention", lambda c: c.d_mlp is not None and not c.parallel)
OWN_NORM = Where("a norm of the MLP's own", lambda c: not c.shared_norm)
CROSS = Where("an encoder to look at", lambda c: c.cross)
ROTARY = Where("rotary positions", lambda c: c.rotary is not None)
RELATIVE = Where("positions in the scores", lambda c: c.relative is not None)
GLOBAL = Where("global tokens", lambda c: c.global_tokens is not None)
HEAD_NORM = Where("a norm on each head's queries and keys", lambda c: c.qk_norm == "head")
WIDE_NORM = Where("a norm over all heads' queries and keys", lambda c: c.qk_norm == "all")
PRE_NORM = Where("pre-norm", lambda c: c.norm != "none" and "in" in c.norm_placement)
MERGES = Where("stages, after each but the last", lambda c: c.merge_to is not None)
POST_NORM = Where("post-norm", lambda c: c.norm != "none" and "add" in c.norm_placement)
OUT_NORM = Where("norms on branch outputs", lambda c: c.norm != "none" and "out" in c.norm_placement)

WIDE = Where("every model but those that project the sum", lambda e: e.project == "tokens")
TOKEN = Where("tokens", lambda e: e.of_tokens)
MEL = Where("mel frames of sounds", lambda e: e.mel is not None)
FEATURES = Where("feature maps of images", lambda e: e.features is not None)
PATCHES = Where("patches of images", lambda e: e.patches is not None)
NARROW = Where("a projection of the sum", lambda e: e.project == "sum")
LEARNED = Where("learned positions", lambda e: e.n_positions is not None and not e.positions_in_attention)
IN_ATTENTION = Where("positions that attention adds", lambda e: e.positions_in_attention)
TYPES = Where("token types", lambda e: e.n_types > 0)
EMBED_NORM = Where("a norm on the embedding", lambda e: e.norm_eps is not None)
LATENTS = Where("latents that read the embedding", lambda e: e.latents is not None)
NORM_LAST = Where("after positions", lambda e: not e.norm_first)
NORM_FIRST = Where("before positions", lambda e: e.norm_first)

FINAL_NORM = Where("a final norm", lambda c: c.norm != "none" and c.final_norm)
UNEMBEDS = Where("an unembedding", lambda cfg: cfg.unembed is not None)
TRANSFORM = Where(
    "a masked language model's head", lambda cfg: cfg.unembed is not None and bool(cfg.unembed.transform)
)
POOLER = Where("a pooler", lambda cfg: cfg.pooler is not None)
POOLER_ACT = Where(
    "a pooler with an activation function", lambda cfg: cfg.pooler is not None and bool(cfg.pooler.act_fn)
)
OF_TEXTS = Where("classes of texts", lambda cfg: cfg.classifier is not None and cfg.classifier.of == "text")
BOXES = Where("boxes of objects", lambda cfg: cfg.boxes)
OF_TOKENS = Where(
    "classes of tokens", lambda cfg: cfg.classifier is not None and cfg.classifier.of == "token"
)


@dataclass(frozen=True)
class Kind:
    """A line of the vocabulary.

    `extra` kinds cost time or memory to make and exist only where they are asked for by name; `conditional`
    ones may not fire in a given run.
    """

    suffix: str
    shape: str
    meaning: str
    where: Where = EVERY
    extra: bool = False
    conditional: bool = False


def _norm(path: str, what: str, where: Where, axes: str = "batch pos", width: str = "d_model") -> list[Kind]:
    """The two sites of a norm: its divisor, and what it divides."""
    return [
        Kind(f"{path}.hook_scale", f"{axes} 1", f"what the norm {what} divides by", where),
        Kind(
            f"{path}.hook_normalized", f"{axes} {width}", f"{what}: normalised, before gain and bias", where
        ),
    ]


STREAM, BY_HEAD, BY_KV = "batch pos d_model", "batch pos head d_model", "batch pos kv d_model"
HEAD, KV, SQUARE = "batch pos head d_head", "batch pos kv d_head", "batch head pos key"
NEURONS, CHOSEN, TOKENS = "batch pos d_mlp", "batch pos top_k", "token d_mlp"

EMBED = [
    Kind("hook_conv1_pre", "batch frame d_model", "first convolution, before its activation function", MEL),
    Kind("hook_conv1_post", "batch frame d_model", "mel frames after the first convolution", MEL),
    Kind("hook_conv2_pre", STREAM, "second convolution, of every other frame, before its activation", MEL),
    Kind("hook_embed", STREAM, "embedding of the sound: what the two convolutions make of it", MEL),
    Kind("hook_features", "batch channel row column", "the feature map that the backbone makes", FEATURES),
    Kind("hook_embed", STREAM, "each place of the feature map, its channels mapped to the stream", FEATURES),
    Kind("hook_embed", STREAM, "token embedding, scaled and projected", TOKEN & WIDE),
    Kind(
        "hook_embed",
        STREAM,
        "patch embedding; in front, the class token's vector where there is one",
        PATCHES,
    ),
    Kind("hook_embed", "batch pos d_embed", "token embedding", NARROW),
    Kind(
        "hook_token_type_embed", STREAM, "embedding of the token's type (first or second text)", TYPES & WIDE
    ),
    Kind("hook_token_type_embed", "batch pos d_embed", "embedding of the token's type", TYPES & NARROW),
    *_norm("embed.ln", "on the embedding of tokens or patches", EMBED_NORM & NORM_FIRST),
    Kind("hook_pos_embed", STREAM, "position embedding", LEARNED & WIDE),
    Kind("hook_pos_embed", "batch pos d_embed", "position embedding", LEARNED & NARROW),
    Kind(
        "hook_pos_embed",
        STREAM,
        "positions, added to what queries and keys of every layer read",
        IN_ATTENTION,
    ),
    *_norm("embed.ln", "on the sum of embeddings", EMBED_NORM & WIDE & NORM_LAST),
    *_norm("embed.ln", "on the sum of embeddings", EMBED_NORM & NARROW, width="d_embed"),
    Kind("hook_latents", "batch latent d_latent", "latents, which the encoder's stream begins as", LATENTS),
    Kind("hook_full_embed", STREAM, "the whole embedding, normalised and projected", EMBED_NORM),
]

SOURCE_KV, SOURCE_SQUARE = "batch source kv d_head", "batch head pos source"

CROSS_ATTENTION = [
    *_norm("ln3", "in front of cross-attention", PRE_NORM & CROSS),
    Kind("cross_attn.hook_q", HEAD, "queries to the source", CROSS),
    Kind("cross_attn.hook_k", SOURCE_KV, "keys of the source", CROSS),
    Kind("cross_attn.hook_v", SOURCE_KV, "values of the source", CROSS),
    Kind(
        "cross_attn.hook_attn_scores", SOURCE_SQUARE, "scaled scores; -inf where the source is padding", CROSS
    ),
    Kind("cross_attn.hook_pattern", SOURCE_SQUARE, "cross-attention probabilities", CROSS),
    Kind("cross_attn.hook_z", HEAD, "values of the source mixed by the pattern", CROSS),
    Kind("cross_attn.hook_result", BY_HEAD, "each head's own contribution, z W_O", CROSS, extra=True),
    Kind("hook_cross_attn_out", STREAM, "what cross-attention adds to the stream", CROSS),
    Kind("hook_resid_mid_cross", STREAM, "stream between cross-attention and MLP", CROSS),
    *_norm("ln3", "on the stream after cross-attention", POST_NORM & CROSS),
]

READ = [
    Kind("hook_resid_pre", STREAM, "residual stream entering the block"),
    Kind(
        "hook_attn_in",
        BY_HEAD,
        "stream as each head reads it; a kv head reads its query heads' mean",
        BY_HEADS,
        extra=True,
    ),
    Kind(
        "hook_q_input",
        BY_HEAD,
        "stream as each head's queries read it, before the norm",
        BY_HEADS,
        extra=True,
    ),
    Kind("hook_k_input", BY_KV, "stream as each head's keys read it, before the norm", BY_HEADS, extra=True),
    Kind(
        "hook_v_input", BY_KV, "stream as each head's values read it, before the norm", BY_HEADS, extra=True
    ),
    *_norm("ln1", "in front of attention", PRE_NORM),
]
"""Sites of a block up to what attention, or the mixer in its place, reads."""

Q = Kind("attn.hook_q", HEAD, "queries, before any norm of their own and rotary positions")
K = Kind("attn.hook_k", KV, "keys, before any norm of their own and rotary positions")
V = Kind("attn.hook_v", KV, "values")
SCORES = Kind("attn.hook_attn_scores", SQUARE, "scaled (and capped) scores; -inf where masked")
PATTERN = Kind("attn.hook_pattern", SQUARE, "attention probabilities; each row sums to one")
Z = Kind("attn.hook_z", HEAD, "values mixed by the pattern")
RESULT = Kind("attn.hook_result", BY_HEAD, "each head's own contribution, z W_O", extra=True)

ATTENTION = [
    *(replace(kind, where=ATTENDS) for kind in (Q, K, V)),
    *_norm("attn.q_norm", "on queries", HEAD_NORM, "batch pos head", "d_head"),
    *_norm("attn.k_norm", "on keys", HEAD_NORM, "batch pos kv", "d_head"),
    *_norm("attn.q_norm", "on all queries", WIDE_NORM, width="head*d_head"),
    *_norm("attn.k_norm", "on all keys", WIDE_NORM, width="kv*d_head"),
    Kind("attn.hook_rot_q", HEAD, "queries after rotary positions", ROTARY),
    Kind("attn.hook_rot_k", KV, "keys after rotary positions", ROTARY),
    Kind("attn.hook_pos_scores", SQUARE, "what relative positions add to the scores", RELATIVE),
    Kind("attn.hook_q_global", HEAD, "queries of global tokens", GLOBAL, conditional=True),
    Kind("attn.hook_k_global", HEAD, "keys that global tokens look at", GLOBAL, conditional=True),
    Kind("attn.hook_v_global", HEAD, "values that global tokens mix", GLOBAL, conditional=True),
    *(replace(kind, where=ATTENDS) for kind in (SCORES, PATTERN, Z, RESULT)),
]
"""Sites of attention; a mixer has its own in their place, some of which may be these."""

BETWEEN = [
    *_norm("ln1_post", "on attention's output", OUT_NORM),
    Kind("hook_attn_out", STREAM, "what attention, or the mixer in its place, adds to the stream"),
    Kind("hook_resid_mid", STREAM, "stream between attention and MLP", SEQUENTIAL),
    *_norm("ln1", "on the stream after attention", POST_NORM & MLP),
    *CROSS_ATTENTION,
    Kind("hook_mlp_in", STREAM, "stream as the MLP reads it, before the norm", MLP, extra=True),
    *_norm("ln2", "in front of the MLP", PRE_NORM & MLP & OWN_NORM),
]
"""Sites of a block between attention and MLP."""

FEED_FORWARD = [
    Kind("mlp.hook_router_logits", "batch pos expert", "the router's logits over experts", EXPERTS),
    Kind("mlp.hook_expert_weights", CHOSEN, "weights of the chosen experts", EXPERTS),
    Kind("mlp.hook_expert_indices", CHOSEN, "which experts were chosen", EXPERTS),
    Kind("mlp.hook_shared_gate", "batch pos 1", "how much of the shared expert is added, 0 to 1", SHARED),
    Kind("mlp.shared.hook_pre", NEURONS, "the shared expert's neurons before the activation", SHARED),
    Kind("mlp.shared.hook_pre_linear", NEURONS, "the branch that its gate multiplies", SHARED & GATED),
    Kind("mlp.shared.hook_post", NEURONS, "its neurons after activation and gate", SHARED),
    Kind("mlp.hook_shared_out", STREAM, "what the shared expert adds", SHARED),
    Kind("mlp.hook_pre", NEURONS, "neurons before the activation function (the gate, if gated)", DENSE),
    Kind("mlp.hook_pre_linear", NEURONS, "the branch that the gate multiplies", DENSE & GATED),
    Kind(
        "mlp.hook_mid", NEURONS, "neurons after activation function and gate, before a norm", DENSE & MLP_NORM
    ),
    *_norm("mlp.ln", "on neurons", DENSE & MLP_NORM, width="d_mlp"),
    Kind("mlp.hook_post", NEURONS, "neurons after activation function and gate", DENSE),
]
"""Sites of the MLP; a mixer may come with one of its own."""

AFTER = [
    *_norm("ln2_post", "on the MLP's output", OUT_NORM & MLP),
    Kind("hook_mlp_out", STREAM, "what the MLP adds to the stream", MLP),
    Kind("hook_resid_post", STREAM, "stream leaving the block, before a post-norm"),
    *_norm("ln1", "on the stream after attention", POST_NORM & NO_MLP),
    *_norm("ln2", "on the stream after the MLP", POST_NORM & MLP & OWN_NORM),
    Kind("hook_normalized_resid_post", STREAM, "stream leaving the block, after its post-norm", POST_NORM),
    *_norm("merge.ln", "on each four positions side by side", MERGES, "batch merged", "4*d_model"),
    Kind("hook_merged", "batch merged d_next", "what the next stage reads: four positions as one", MERGES),
]
"""Sites of a block from the MLP's output on."""

BLOCK = [*READ, *ATTENTION, *BETWEEN, *FEED_FORWARD, *AFTER]
"""Sites of a block with attention, in the order in which they fire."""

EXPERT = [
    Kind(
        "hook_pre",
        TOKENS,
        "neurons before the activation, of the tokens sent here",
        EXPERTS,
        conditional=True,
    ),
    Kind("hook_pre_linear", TOKENS, "the branch that the gate multiplies", EXPERTS & GATED, conditional=True),
    Kind("hook_post", TOKENS, "neurons after activation and gate", EXPERTS, conditional=True),
]
"""Sites of each expert, `blocks.{l}.mlp.experts.{e}.…`: a row per token sent to it, by (batch, pos)."""

FINAL = _norm("ln_final", "at the end of the stack", FINAL_NORM)
"""Sites of the norm at the end of a stack."""

UNEMBED = [
    Kind(
        "pooler.hook_pooler_pre", "batch d_model", "pooled vector before its activation function", POOLER_ACT
    ),
    Kind("pooler.hook_pooler_out", "batch d_model", "the vector that stands for the text or image", POOLER),
    Kind("classifier.hook_logits", "batch class", "logits over classes", OF_TEXTS),
    Kind("classifier.hook_logits", "batch pos class", "each token's logits over classes", OF_TOKENS),
    Kind("boxes.hook_pre1", STREAM, "first hidden layer of boxes, before its ReLU", BOXES),
    Kind("boxes.hook_post1", STREAM, "first hidden layer of boxes", BOXES),
    Kind("boxes.hook_pre2", STREAM, "second hidden layer of boxes, before its ReLU", BOXES),
    Kind("boxes.hook_post2", STREAM, "second hidden layer of boxes", BOXES),
    Kind("boxes.hook_pre", "batch pos coordinate", "boxes before their sigmoid", BOXES),
    Kind(
        "boxes.hook_boxes",
        "batch pos coordinate",
        "centre across, centre down, width, height: parts of the image",
        BOXES,
    ),
    Kind(
        "mlm_head.hook_mlm_pre",
        "batch pos d_embed",
        "hidden layer of the head before its activation",
        TRANSFORM,
    ),
    Kind("mlm_head.hook_mlm_post", "batch pos d_embed", "hidden layer of the head", TRANSFORM),
    *_norm("mlm_head.ln", "in front of the vocabulary", TRANSFORM, width="d_embed"),
    Kind("hook_logits", "batch pos d_vocab", "logits", UNEMBEDS),
]
"""Sites of the ends of a model. Pooler and classifier run where they are looked at, or are all there is."""

ALIASES = {
    "attn": "pattern", "attn_logits": "attn_scores", "query": "q", "key": "k", "value": "v",
    "mlp_pre": "pre", "mlp_post": "post", "resid": "resid_pre",
    "mixer_out": "attn_out",
}  # fmt: skip
"""Other names that TransformerLens's users give to kinds of sites."""
