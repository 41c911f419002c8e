"""Direct logit attribution: what each component itself writes to the answer's logit over the wrong one's.

1. One run of the clean prompts keeps, at the position of the answer, what every component wrote and the divisor
   of the final norm.
2. With that divisor held fixed, everything after the last stream is linear: the direction W_U[answer] −
   W_U[wrong] is pulled back through it once, and a component's share is its dot product with the result.
3. Shares of embedding, heads, MLPs and biases add up to the logit difference, before a soft cap.

Where a pair has no wrong answer, the answer is compared with the mean logit of the vocabulary, so that what
moves all logits alike counts for nothing. This tells who writes the answer, not who causes it: heads may act
through others. (Logit attribution: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.)

Letters: n pair, c component, d d_model, m neuron, h head, e d_head, a answer token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from circuits import senders
from lens.taps import Taps

if TYPE_CHECKING:
    from circuits.pairs import Pairs
    from lens.block import Block
    from lens.model import Transformer
    from lens.norm import Norm

BIAS = "bias"


@dataclass(frozen=True, eq=False)
class LogitAttribution:
    """Shares of the components named, in logits, per pair; `total` is what they add up to.

    Names are those of nodes (`embed`, `a9.h2`, `m4`), then `a9.bias` where attention has one, and last `bias`,
    of the final norm and the unembedding.
    """

    names: tuple[str, ...]
    values: Float[Tensor, "n c"]
    total: Float[Tensor, " n"]

    @property
    def mean(self) -> dict[str, float]:
        """Component → mean over pairs, in the order in which they are computed."""
        return dict(zip(self.names, self.values.mean(0).tolist(), strict=True))


@torch.no_grad()
def logit_attribution(model: Transformer, pairs: Pairs) -> LogitAttribution:
    """Every component's share of answer − wrong at the end of the clean prompts, all pairs in one batch.

    Raises:
        ValueError: the model is post-norm or its unembedding is not linear, or the pairs do not fit it.
    """
    run = _Run(model, pairs, senders.sites(model))
    names, values = ["embed"], [(run.seen[senders.embed_site(model)] * run.towards).sum(-1)]
    for layer in range(model.cfg.n_layers):
        block = model.block(layer)
        towards, bias = run.through(block.ln1_post)
        z = run.seen[block.attn.hook_z]  # [n, h, e]
        shares = torch.einsum("nhe,hed,nd->nh", z, block.attn.W_O.double(), towards)
        names += [f"a{layer}.h{h}" for h in range(shares.shape[1])]
        values += list(shares.T)
        if block.attn.o.bias is not None or bias is not None:
            names.append(f"a{layer}.bias")
            values.append(block.attn.b_O.double() @ towards.T + (0.0 if bias is None else bias))
        if block.mlp is not None:
            names.append(f"m{layer}")
            values.append((run.seen[block.hook_mlp_out] * run.towards).sum(-1))
    names.append(BIAS)
    values.append(run.bias)
    found = torch.stack(values, 1)
    return LogitAttribution(tuple(names), found.float().cpu(), run.total.float().cpu())


@torch.no_grad()
def neuron_attribution(model: Transformer, pairs: Pairs, layer: int) -> Float[Tensor, "n m"]:
    """The shares of one MLP's neurons, in logits; with the MLP's bias they add up to its share.

    Raises:
        ValueError: there is no such layer, it has no neurons of one MLP, or as `logit_attribution`.
    """
    if not 0 <= layer < model.cfg.n_layers:
        raise ValueError(f"layer {layer} does not exist; {model.name} has {model.cfg.n_layers}")
    block = model.block(layer)
    site = f"blocks.{layer}.mlp.hook_post"
    if site not in model.sites:
        why = "a mixture of experts" if block.mlp is not None else "no MLP"
        raise ValueError(f"{model.name} has {why} in layer {layer}, so no neurons to attribute to")
    assert block.mlp is not None
    reads = [site, *([] if block.ln2_post is None else [block.ln2_post.hook_scale])]
    run = _Run(model, pairs, reads)
    towards, _ = run.through(block.ln2_post)
    return (run.seen[site] * (towards @ _down(block).double())).float().cpu()


def _down(block: Block) -> Tensor:
    """The weight of an MLP's last map, [d, m]."""
    down = getattr(block.mlp, "down", None)
    assert isinstance(down, torch.nn.Linear)
    return down.weight


class _Run:
    """What one run wrote at the answers, in double precision, and the direction pulled back to the last stream."""

    def __init__(self, model: Transformer, pairs: Pairs, reads: list[str]) -> None:
        senders.check_linear(model.cfg)
        pairs.check(model.cfg)
        unembed, norm = model.unembed, model.ln_final
        if unembed.transform is not None:
            raise ValueError(
                f"the unembedding of {model.name} has a hidden layer: logits are no sum of shares"
            )
        last = model.block(model.cfg.n_layers - 1).hook_resid_post
        ends, rows = pairs.ends.to(model.device), torch.arange(len(pairs), device=model.device)

        def keep(site: str, x: Tensor) -> Tensor:
            return (x[:, 0] if x.shape[1] == 1 else x[rows, ends]).double()

        taps = Taps([*reads, last, *([] if norm is None else [norm.hook_scale])], keep=keep)
        mask = None if pairs.attention_mask is None else pairs.attention_mask.to(model.device)
        model(pairs.clean.to(model.device), taps=taps, attention_mask=mask, logits_at=ends)
        self.seen = taps.seen
        direction = self._mean(unembed.linear.weight, pairs.answers) - self._wrong(model, pairs)
        u = direction.double() * unembed.cfg.scale
        if unembed.project is not None:
            u = u @ unembed.project.weight.double()
        self.bias = torch.zeros(len(pairs), dtype=torch.float64, device=model.device)
        if unembed.linear.bias is not None:
            b = unembed.linear.bias[:, None]
            own = self._mean(b, pairs.answers) - self._wrong(model, pairs, b)
            self.bias = self.bias + own[:, 0].double()
        if norm is not None:
            if norm.bias is not None:
                self.bias = self.bias + u @ norm.bias.double()
            u = norm.centre(u * norm.gain.double()) / self.seen[norm.hook_scale]
        self.towards = u
        self.total = (self.seen[last] * u).sum(-1) + self.bias

    def through(self, norm: Norm | None) -> tuple[Tensor, Tensor | None]:
        """The direction in front of a norm on a branch's output, and what that norm's own bias writes."""
        if norm is None:
            return self.towards, None
        u = norm.centre(self.towards * norm.gain.double()) / self.seen[norm.hook_scale]
        return u, None if norm.bias is None else self.towards @ norm.bias.double()

    def _wrong(self, model: Transformer, pairs: Pairs, rows: Tensor | None = None) -> Tensor:
        rows = model.unembed.linear.weight if rows is None else rows
        has = (pairs.wrong.reshape(len(pairs), -1) >= 0).any(1).to(rows.device)
        return torch.where(has[:, None], self._mean(rows, pairs.wrong), rows.mean(0))

    @staticmethod
    def _mean(rows: Tensor, ids: Tensor) -> Tensor:
        """The mean over each pair's tokens of rows of a table, [n, d]; zero where there are none."""
        ids = ids.reshape(len(ids), -1).to(rows.device)
        there = (ids >= 0).to(rows.dtype)
        found = torch.einsum("nad,na->nd", rows[ids.clamp(min=0)], there)
        return found / there.sum(1, keepdim=True).clamp(min=1)
