"""What an edit of a site means on a given model: how far it reaches, and what stands between it and the stream."""

from __future__ import annotations

from lens.config import ModelConfig, StackConfig


def edits_in_words(cfg: ModelConfig) -> list[str]:
    """One sentence per peculiarity that decides what an edit does; names are kinds of sites."""
    stacks = [cfg.stack] if cfg.source is None else [cfg.source.stack, cfg.stack]
    names = [""] if cfg.source is None else ["encoder: ", "decoder: "]
    lines = [name + line for name, c in zip(names, stacks, strict=True) for line in _of_stack(c)]
    if cfg.source is not None:
        lines.append(
            "an edit of an encoder site reaches the decoder through cross-attention in every block, and has no place "
            "in a run that is given what the encoder made (`ModelInputs.source=model.encode(…)`)"
        )
    if any(None in c.mixers for c in stacks):
        lines.append(
            "attn_scores are edited before the softmax, pattern after it: its rows are used as they are, whatever "
            "they sum to"
        )
    if cfg.classifier is not None and cfg.classifier.of == "text" and cfg.pooler is None:
        lines.append("classes are read at the first position: edits elsewhere reach them through attention")
    return lines


def _of_stack(c: StackConfig) -> list[str]:
    reach = "that position and those after it" if c.causal else "all positions"
    if all(mixer is not None and mixer.reads_source for mixer in c.mixers):
        reach = "that position alone: positions look at a source, and not at each other"
    local = c.stages is not None or any(isinstance(window, int) for window in c.windows or ())
    lines = [
        f"an edit at one position reaches {reach}{', a window further with each block' if local else ''}"
    ]
    if c.d_mlp is not None:
        lines.append(_order(c))
    if "add" in c.norm_placement and c.norm != "none":
        lines.append(
            "a norm follows each sum: what is added to resid_post is rescaled, and the next block reads "
            "normalized_resid_post"
        )
    if "out" in c.norm_placement and c.norm != "none":
        lines.append("attn_out and mlp_out are what joins the stream, behind the norms on the branches")
    group = c.n_heads // c.n_kv_heads if c.n_kv_heads else 1
    if group > 1:
        lines.append(
            f"k and v, and k_input and v_input, belong to {group} query heads each: an edit reaches all"
        )
    if c.experts is not None:
        lines.append(
            "router_logits decide which experts a token is sent to; expert_weights only how much they count"
        )
    if c.shared is not None:
        lines.append(
            "layers that share their parameters have sites of their own: an edit acts in one of them"
        )
    return lines


def _order(c: StackConfig) -> str:
    if c.parallel:
        return "attention and MLP read resid_pre: an edit of attn_out does not reach the MLP of its block"
    return "the MLP reads the stream after attention: an edit of attn_out reaches the MLP of its block"
