"""The vocabulary as a page: `python -m lens.glossary > docs/glossary.md`."""

from __future__ import annotations

import sys
from dataclasses import replace

from lens.mixer import MIXERS, Mixer
from lens.vocabulary import BLOCK, EMBED, EXPERT, FINAL, UNEMBED, Kind, Where

HEAD = """# Glossary of sites

Every activation that a run can read or edit. The names are TransformerLens's; `python -m lens.glossary` makes
this page from `lens/vocabulary.py`, and `lens info MODEL` lists the sites of one model.

- A site can be named in full (`blocks.3.attn.hook_pattern`), by kind for all layers (`"pattern"`), or by
  kind and layer (`("pattern", 3)`, `("scale", 3, "ln1")`).
- *Made on request*: costs time or memory, and exists only in runs that ask for it by name.
- Edits at every site take effect on everything after it.
- Where a run edits or differentiates per-head inputs (`hook_q_input` …), the sites of `ln1` fire for queries,
  keys and values in turn, with a head axis.
- In a run that stands on cached keys and values (`past`), *pos* counts new positions and *key* all of them.
- In an encoder–decoder, block l is `encoder.{l}.` or `decoder.{l}.`, sites of embeddings begin with `encoder.` or
  `decoder.`, the final norms are `encoder_final_ln` and `decoder_final_ln`; `("pattern", 3)` is the decoder's,
  `("cross_attn.hook_pattern", 3)` where it looks at the source.
- Where stages differ in width (Swin), `model.sites[name].sizes` says how large each axis is in its layer. Patterns
  are those of the whole map, reading order; a *cell* is a position, or behind all of them what pads the map.
- The model of images beside one of texts (`model.vision`, CLIP) has its own sites, runs and caches.
- In a run with `logits_at`, `ln_final` and `hook_logits` have only those positions.
"""


def table(prefix: str, kinds: list[Kind]) -> list[str]:
    """Markdown rows, one per kind."""
    rows = ["| site | shape | meaning | in models with |", "|---|---|---|---|"]
    for kind in kinds:
        note = " *Made on request.*" if kind.extra else ""
        rows.append(
            f"| `{prefix}{kind.suffix}` | {kind.shape} | {kind.meaning}.{note} | {kind.where.words} |"
        )
    return rows


def _own(mixer: Mixer) -> list[Kind]:
    return [
        replace(kind, where=Where(mixer.name, kind.where.holds)) for kind in mixer.kinds + mixer.mlp_kinds
    ]


def page() -> str:
    """The whole page, Markdown."""
    parts = [
        ("Embedding", "", EMBED),
        ("Block l", "blocks.{l}.", BLOCK),
        ("Expert e of block l", "blocks.{l}.mlp.experts.{e}.", EXPERT),
        *(
            (f"Block l with the mixer {name}", "blocks.{l}.", _own(MIXERS.get(name)))
            for name in MIXERS.names()
        ),
        ("Ends", "", [*FINAL, *UNEMBED]),
    ]
    lines = [HEAD]
    for title, prefix, kinds in parts:
        lines += [f"## {title}", "", *table(prefix, kinds), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
