"""What every head attends to, copies and writes to the answer, in one run of the clean and the ablated prompts.

1. The clean prompts and what ablates them (the corrupt prompts, usually) are run as one batch. Reduced on the
   way, nothing large is kept: each pattern to a few numbers, each head's z to the position of the answer.
2. Direct logit effect: a head's output there, z W_O, through the final norm with the divisor of the clean run
   (held fixed, the norm is linear), times W_U[answer] − W_U[wrong]; in logits, before a soft cap. The same of
   the ablated z less that of the clean one is exactly what patching the edge head → logits does, norm held.
3. Copying: the head's OV circuit on its own input (as the run normalised it) at positions that hold one of the
   answer tokens of the pairs; where does the logit of the token itself rank among those of all of them? 1:
   always first, −1: always last, 0: chance (cf. the copying score of Wang et al. 2022, arXiv 2211.00593).

Heads can be knocked out in the same run: their z is given the ablated value at every position.

Letters: n pair, p position, l layer, h head, g key/value head, e d_head, d d_model, m occurrence, a answer token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import senders
from circuits.ablation import Ablation, Source, get_ablation
from circuits.graph import Graph
from circuits.metrics import bind, get_metric
from lens.head_scores import head_scores
from lens.nearest import unknown
from lens.progress import Progress, silent
from lens.taps import Edit, Taps

if TYPE_CHECKING:
    from circuits.metrics import Metric
    from circuits.pairs import Pairs
    from circuits.suffix import Suffix
    from lens.model import Transformer

END = "END"
SAME, NEXT = "duplicate", "induction"


@dataclass(frozen=True, eq=False)
class HeadTable:
    """Numbers of all heads, float [l, h] on the CPU, by name; NaN where a number cannot be asked for.

    - `previous_token`, `first_token`: attention over all queries (`lens.head_scores`).
    - `duplicate`, `induction`: attention from a label to an earlier label of the same token, and to the
      position after that; the largest where several labels repeat. Without such labels the scores of
      `lens.head_scores` over all queries.
    - `END→X`: attention from the answer's position to label X; `END→answer`, `END→wrong`: to all earlier
      positions that hold a right or a wrong answer; `END→END`: to itself.
    - `copying`: from −1 to 1.
    - `direct`: direct logit effect on answer − wrong, in logits; `direct_change`: what ablating the head's
      direct edge to the logits does to it.

    `metric`, `ablated`: the metric of the clean (and knocked) prompts and of the ablated ones, float [n].
    `logit_gap`: the mean logit difference of the clean prompts less that of the ablated ones.
    `scale`: the divisor of the final norm at the answers, [n, 1], or None without one.
    """

    graph: Graph
    features: dict[str, Float[Tensor, "l h"]]
    metric: Float[Tensor, " n"]
    ablated: Float[Tensor, " n"]
    logit_gap: float
    scale: Tensor | None

    def of(self, head: str) -> dict[str, float]:
        """One head's numbers.

        Raises:
            ValueError: there is no such head.
        """
        layer, index = place_of(self.graph, head)
        return {name: float(values[layer, index]) for name, values in self.features.items()}


def place_of(graph: Graph, head: str) -> tuple[int, int]:
    """A head's layer and index.

    Raises:
        ValueError: there is no head of that name.
    """
    heads = {node.name: node for node in graph.sender_nodes if node.kind == "head"}
    if head not in heads:
        raise ValueError(unknown("head of this model", head, heads))
    node = heads[head]
    assert node.layer is not None and node.head is not None
    return node.layer, node.head


@torch.no_grad()
def head_table(
    model: Transformer,
    pairs: Pairs,
    *,
    knocked: Iterable[str] = (),
    ablation: str | Ablation = "counterfactual",
    metric: str | Metric = "logit_diff",
    scale: Tensor | None = None,
    progress: Progress = silent,
) -> HeadTable:
    """The numbers of all heads, with the heads `knocked` given their ablated value; all pairs in one batch.

    Args:
        scale: the divisor of the final norm to hold fixed, [n, 1], as another table has it; None: this run's.
        progress: told of every layer twice: when it is run, and when its heads' numbers are made.

    Raises:
        ValueError: a head does not exist, the ablation is unknown, the model is post-norm, or the pairs do
            not fit it.
    """
    senders.check_linear(model.cfg)
    pairs.check(model.cfg)
    graph, chosen = Graph.of(model.cfg), bind(metric, model, pairs)
    places = [place_of(graph, name) for name in knocked]
    sites = [model.block(layer).attn.hook_z for layer in range(model.cfg.n_layers)]
    source = get_ablation(ablation).source(model, pairs, [senders.embed_site(model), *sites])
    suffix = source.suffix(model, share_prefix=False)
    run = _Run(model, pairs, suffix, source, progress)
    ids, edits = source.both(suffix)
    taps = Taps(run.reads(), {**edits, **run.edits(places)}, keep=run.keep)
    logits = suffix.run(ids, taps)[:, 0]
    logits = logits.unflatten(0, (2, -1))
    metrics, differences = (m(logits, pairs).cpu() for m in (chosen, get_metric("logit_diff")))
    if model.ln_final is not None:
        run.scale = taps.seen[model.ln_final.hook_scale][: len(pairs), 0] if scale is None else scale
        run.scale = run.scale.to(logits.device)
    rows = []
    for layer in range(model.cfg.n_layers):
        run.told(model.cfg.n_layers + layer)
        rows.append(run.layer(layer, taps.seen))
    features = {name: torch.stack([row[name] for row in rows]).float().cpu() for name in rows[0]}
    kept = None if run.scale is None else run.scale.cpu()
    gap = float(differences[0].mean() - differences[1].mean())
    return HeadTable(graph, features, metrics[0], metrics[1], gap, kept)


class _Run:
    """What is noted while the batch runs, and what is made of it afterwards."""

    def __init__(
        self, model: Transformer, pairs: Pairs, suffix: Suffix, source: Source, progress: Progress
    ) -> None:
        self.model, self.pairs, self.suffix, self.source = model, pairs, suffix, source
        self.progress = progress
        self.ids, self.ends, self.n = suffix.clean, suffix.ends, len(pairs)
        width = self.ids.shape[1]
        mask = pairs.mask[:, :width].to(self.ids.device)
        places = torch.arange(width, device=self.ids.device)
        self.valid, self.earlier = mask & (places <= self.ends[:, None]), mask & (places < self.ends[:, None])
        self.rows = torch.arange(self.n, device=self.ids.device)
        self.attention: dict[int, dict[str, Tensor]] = {}
        self.scale: Tensor | None = None
        self.repeats = self._repeats()
        answers = [ids.to(self.ids.device).reshape(self.n, -1) for ids in (pairs.answers, pairs.wrong)]
        self.answers, self.wrong = answers
        self.direction = self._unembedding(answers[0]) - self._unembedding(answers[1])
        both = torch.cat(answers, 1)
        self.tokens = both[both >= 0].unique()
        self.occurrences = (torch.isin(self.ids, self.tokens) & self.earlier).nonzero(as_tuple=True)

    def told(self, done: int) -> None:
        """How many of the layers are run, and then treated."""
        self.progress(done, 2 * self.model.cfg.n_layers, "heads")

    # ---- while it runs

    def reads(self) -> list[str]:
        """The sites whose values at a few positions are kept."""
        names: list[str] = []
        for layer in range(self.model.cfg.n_layers):
            block = self.model.block(layer)
            names += [block.attn.hook_z, block.attn.hook_v]
            names += [] if block.ln1_post is None else [block.ln1_post.hook_scale]
        return [*names, *([] if self.model.ln_final is None else [self.model.ln_final.hook_scale])]

    def keep(self, site: str, x: Tensor) -> Tensor:
        """The rows and positions of a read that are needed later."""
        if site.endswith("hook_v"):
            return x[self.occurrences]
        if x.shape[1] == 1:  # the final norm sees only the answers' positions
            return x
        return x[torch.arange(2 * self.n, device=x.device), self.ends.repeat(2)]

    def edits(self, knocked: list[tuple[int, int]]) -> dict[str, list[Edit]]:
        """Knock-outs at z, and patterns reduced to a few numbers on the way."""
        edits: dict[str, list[Edit]] = {}
        for layer in range(self.model.cfg.n_layers):
            attn = self.model.block(layer).attn
            heads = [h for l, h in knocked if l == layer]
            if heads:
                edits[attn.hook_z] = [self._knock_out(attn.hook_z, heads)]
            edits[attn.hook_pattern] = [self._reduce(layer)]
        return edits

    def _knock_out(self, site: str, heads: list[int]) -> Edit:
        def edit(z: Tensor) -> Tensor:
            ablated = self.source.constants_at(self.suffix, site) if not self.source.runs else z[self.n :]
            z = z.clone()
            z[: self.n, :, heads] = ablated[:, :, heads]
            return z

        return edit

    def _reduce(self, layer: int) -> Callable[[Tensor], None]:
        def note(pattern: Tensor) -> None:
            self.told(layer)
            clean = pattern[: self.n].float()
            scores = head_scores(clean, self.ids, self.valid)
            at_end = clean[self.rows, :, self.ends]  # [n, h, p]
            found = {name: scores[name] for name in ("previous_token", "first_token")}
            for name, score in ((SAME, "duplicate_token"), (NEXT, "induction")):
                found[name] = self._from_labels(clean, int(name == NEXT), scores[score])
            found[f"{END}→{END}"] = at_end[self.rows, :, self.ends].mean(0)
            for label, at in self.pairs.labels.items():
                if label != END:
                    found[f"{END}→{label}"] = at_end[self.rows, :, at.to(self.ids.device)].mean(0)
            for name, ids in (("answer", self.answers), ("wrong", self.wrong)):
                holds = (self.ids[:, :, None] == ids[:, None, :]).any(2) & self.earlier
                found[f"{END}→{name}"] = torch.einsum("nhp,np->h", at_end, holds.float()) / self.n
            self.attention[layer] = found

        return note

    def _repeats(self) -> list[tuple[Tensor, Tensor]]:
        """Labels that hold the token of an earlier label, in every pair."""
        places = [at.to(self.ids.device) for name, at in self.pairs.labels.items() if name != END]
        same = lambda a, b: (self.ids[self.rows, a] == self.ids[self.rows, b]).all()  # noqa: E731
        return [(a, b) for a in places for b in places if (b < a).all() and same(a, b)]

    def _from_labels(self, pattern: Tensor, further: int, otherwise: Tensor) -> Tensor:
        if not self.repeats:
            return otherwise
        seen = [pattern[self.rows, :, later, first + further].mean(0) for later, first in self.repeats]
        return torch.stack(seen).amax(0)

    # ---- afterwards

    def layer(self, layer: int, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every number of one layer's heads, [h] each."""
        block = self.model.block(layer)
        z = seen[block.attn.hook_z][:, None]  # one position, [2n, 1, h, e]
        if not self.source.runs:
            fixed = self.source.constants_at(self.suffix, block.attn.hook_z)[self.rows, self.ends]
            z = torch.cat([z[: self.n], fixed[:, None]])
        divisor = None if block.ln1_post is None else seen[block.ln1_post.hook_scale][:, None]
        wrote = senders.heads(block, z, divisor)[:, :, 0]  # [h, 2n, d]
        clean, ablated = (
            torch.einsum("hnd,nd->hn", self._final(x, self.rows), self.direction)
            for x in wrote.split(self.n, 1)
        )
        direct = {"direct": clean.mean(1), "direct_change": (ablated - clean).mean(1)}
        return self.attention[layer] | {"copying": self._copying(layer, seen)} | direct

    def _final(self, x: Float[Tensor, "... d"], pairs: Tensor) -> Float[Tensor, "... d"]:
        """A part of the last residual stream as the unembedding sees it; the last lead axis is over `pairs`."""
        norm, unembed = self.model.ln_final, self.model.unembed
        if norm is not None:
            assert self.scale is not None
            x = norm.linear(x, self.scale[pairs])
        if unembed.project is not None:
            x = unembed.project(x)
        return x * unembed.cfg.scale

    def _unembedding(self, ids: Tensor) -> Tensor:
        """The mean unembedding of the tokens of each pair, [n, d]."""
        there = (ids >= 0).float()
        rows = self.model.unembed.linear.weight[ids.clamp(min=0)]
        return torch.einsum("nad,na->nd", rows, there) / there.sum(1, keepdim=True)

    def _copying(self, layer: int, seen: dict[str, Tensor]) -> Tensor:
        block, cfg = self.model.block(layer), self.model.cfg
        pairs, where = self.occurrences
        if len(pairs) == 0 or len(self.tokens) < 2:
            return torch.full((cfg.n_heads,), torch.nan)
        v = seen[block.attn.hook_v].repeat_interleave(cfg.n_heads // cfg.n_key_value_heads, 1)  # [m, h, e]
        wrote = torch.einsum("mhe,hed->hmd", v, block.attn.W_O)
        if block.ln1_post is not None:
            wrote = block.ln1_post.linear(wrote, seen[block.ln1_post.hook_scale][pairs])
        logits = self._final(wrote, pairs) @ self.model.unembed.linear.weight[self.tokens].T  # [h, m, a]
        own = torch.searchsorted(self.tokens, self.ids[pairs, where])
        mine = logits.gather(2, own.expand(cfg.n_heads, -1)[..., None])
        below = (logits < mine).sum(2) - (logits > mine).sum(2)
        return (below / (len(self.tokens) - 1)).mean(1)
