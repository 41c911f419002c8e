"""Who writes a direction: the residual stream's projection onto it, component by component.

The stream is a sum, so its projection onto a unit vector u is a sum as well. At a position of a prompt:

1. `embed`: the stream that enters the first block, times u (tokens and learned positions).
2. `a{l}.h{h}`: z W_O u, with the head's own z; queries may be grouped, W_O is per query head.
3. `a{l}.bias`: attention's output bias, which belongs to no head (where the model has one).
4. `m{l}`: what the MLP of layer l adds, its biases included, times u.
5. Where a norm sits on a branch's output (Gemma-2, OLMo-2), what is added is that norm of the branch. With the
   divisor s of the same run it is linear: y ↦ centre(y) gain / s + bias. So u becomes centre(gain ⊙ u), and the
   share of a head is z W_O centre(gain ⊙ u) / s; the norm's bias goes to `a{l}.bias`.

The components up to a site add up to the projection at that site. The names are those of the nodes of a circuit.
Direct attribution says who writes the direction here, not who causes it: an early head may act through a later one.

Letters: n prompt, c component, d d_model, h head, e d_head.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from lens.mixer import check_attention
from lens.progress import Progress, silent
from lens.sites import resolve
from lens.taps import Halt, Taps
from probes import given
from probes.directions import unit
from probes.intervals import mean_interval
from probes.prompts import At, Batch, Inputs, Prompts

if TYPE_CHECKING:
    import pandas as pd

    from lens.block import Block
    from lens.model import Transformer

STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")


@dataclass(frozen=True, eq=False)
class Writers:
    """What each component writes along a direction, in the units of the activation.

    Args:
        site: where the projection is taken.
        names: of the components, in the order in which they are computed.
        values: [n, c] per prompt.
        total: [n], the projection of the stream itself; `values` add up to it.
        direction: u [d].
    """

    site: str
    names: tuple[str, ...]
    values: Float[Tensor, "n c"]
    total: Float[Tensor, " n"]
    direction: Float[Tensor, " d"]

    @property
    def mean(self) -> Float[Tensor, " c"]:
        """Mean over prompts."""
        return self.values.mean(0)

    @property
    def error(self) -> float:
        """The largest difference between the components' sum and the projection, relative to the latter's size."""
        size = self.total.abs().max().clamp(min=1e-300)
        return float((self.values.sum(1) - self.total).abs().max() / size)

    def minus(self, other: Writers) -> Writers:
        """Prompt by prompt: what is written in these more than in those.

        Raises:
            ValueError: another site, another number of prompts, or another direction.
        """
        if (self.site, self.names) != (other.site, other.names):
            raise ValueError(f"these are writers at {self.site!r}, and those at {other.site!r}")
        if self.values.shape != other.values.shape:
            raise ValueError(
                f"there are {len(self.values)} prompts on one side and {len(other.values)} on the other"
            )
        if not torch.equal(self.direction, other.direction):
            raise ValueError("the two directions differ")
        return Writers(
            self.site, self.names, self.values - other.values, self.total - other.total, self.direction
        )

    def nodes(self) -> dict[str, float]:
        """Node of a circuit → mean; without the biases, which are no nodes."""
        pairs = zip(self.names, self.mean.tolist(), strict=True)
        return {name: value for name, value in pairs if not name.endswith(".bias")}

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The k components with the largest mean, of either sign."""
        order = self.mean.abs().argsort(descending=True)[:k].tolist()
        return [(self.names[i], float(self.mean[i])) for i in order]

    @property
    def table(self) -> pd.DataFrame:
        """One row per component: mean, its 95% interval over prompts, and its share of the mean projection."""
        import pandas as pd

        low, high = mean_interval(self.values)
        columns = {"component": self.names, "mean": self.mean, "low": low, "high": high}
        return pd.DataFrame({**columns, "share": self.mean / self.total.mean()})


def writers(
    model: Transformer,
    inputs: Inputs,
    direction: Any,
    site: str,
    *,
    at: At = "last",
    against: Inputs | None = None,
    against_at: At | None = None,
    name: str | None = None,
    batch_size: int = 32,
    progress: Progress = silent,
) -> Writers:
    """What the embedding, every head and every MLP before a site write along a direction.

    Args:
        inputs: n texts, or ids [n, p].
        direction: a vector [d_model], made a unit vector, or a probe with `.direction(name)`.
        site: a stream: `resid_pre`, `resid_mid` or `resid_post` of one layer.
        at: the position of each prompt: "last", a number (negative: from the end), or one for each.
        against: as many prompts, each the other side of one of `inputs` (false for true): the result is the difference.
        against_at: their positions, where they are not `at` too.
        name: which of a probe's directions.
        batch_size: only speed and memory depend on it.

    Raises:
        ValueError: a site that is not one stream, a model that normalises the stream itself (post-norm), a direction
            of another width, a position that a prompt does not have, prompts that do not pair up.
    """
    given.check_model(model)
    full = _stream(model, site)
    u = unit(direction, model.cfg.d_model, name)
    sides = [(Prompts.of(model, inputs), at)]
    if against is not None:
        sides.append((Prompts.of(model, against), at if against_at is None else against_at))
        if len(sides[1][0]) != len(sides[0][0]):
            raise ValueError(
                f"there are {len(sides[0][0])} prompts and {len(sides[1][0])} to compare them with"
            )
    places = [prompts.at(where) for prompts, where in sides]
    total, done, found = sum(len(prompts) for prompts, _ in sides), 0, []
    for (prompts, _), where in zip(sides, places, strict=True):
        parts: list[Writers] = []
        order = []
        for batch in prompts.batches(model, batch_size):
            progress(done, total, "attributing a direction")
            parts.append(_of(model, batch, where[batch.index], full, u))
            order.append(batch.index)
            done += len(batch.index)
        back = torch.cat(order).argsort()
        values, totals = torch.cat([x.values for x in parts])[back], torch.cat([x.total for x in parts])[back]
        found.append(Writers(full, parts[0].names, values, totals, u))
    progress(total, total, "attributing a direction")
    return found[0] if against is None else found[0].minus(found[1])


def _stream(model: Transformer, site: str) -> str:
    """The full name of a stream whose components add up."""
    names = resolve(site, model.sites)
    if len(names) != 1 or model.sites[names[0]].kind not in STREAM:
        raise ValueError(
            f"{site!r} is not one residual stream; name one, such as 'blocks.{model.cfg.n_layers - 1}.hook_resid_post'"
        )
    check_attention(model.cfg, "what writes to its stream are no heads")
    if "add" in model.cfg.stack.norm_placement and model.cfg.stack.norm != "none":
        raise ValueError(
            f"{model.cfg.name} normalises the stream itself after each sum (post-norm): writes do not add up"
        )
    return names[0]


def _of(model: Transformer, batch: Batch, at: Tensor, site: str, u: Tensor) -> Writers:
    """One forward: only what is at the positions is kept."""
    last = model.sites[site].layer
    assert last is not None
    blocks = [model.block(layer) for layer in range(last + 1)]
    stream = model.block(0).hook_resid_pre
    reads = {stream, site}
    for block in blocks:
        reads.update(_reads(block, site))
    rows, where = torch.arange(len(at), device=model.device), at.to(model.device)
    taps = Taps(reads, keep=lambda _, x: x[rows, where].cpu().double(), halt=True)
    with suppress(Halt):
        model(batch.ids, attention_mask=batch.attention_mask, taps=taps)
    seen = taps.seen
    names, values = ["embed"], [seen[stream] @ u]
    for block in blocks:
        for name, value in _written(block, seen, site, u):
            names.append(name)
            values.append(value)
    return Writers(site, tuple(names), torch.stack(values, 1), seen[site] @ u, u)


def _reads(block: Block, site: str) -> list[str]:
    """What has been written in this block when the run comes to the site."""
    if site == block.hook_resid_pre:
        return []
    names = [block.attn.hook_z]
    if block.ln1_post is not None:
        names.append(block.ln1_post.hook_scale)
    if block.mlp is not None and site != block.hook_resid_mid:
        names.append(block.hook_mlp_out)
    return names


def _written(block: Block, seen: dict[str, Tensor], site: str, u: Tensor) -> list[tuple[str, Tensor]]:
    if block.attn.hook_z not in seen:
        return []
    attn, norm, layer = block.attn, block.ln1_post, block.layer
    z = seen[attn.hook_z]  # [n, h, e]
    towards, divisor, constant = u, torch.ones(1, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    if norm is not None:
        towards = norm.centre(norm.gain.double().cpu() * u)
        divisor = seen[norm.hook_scale]  # [n, 1]
        constant = constant if norm.bias is None else norm.bias.double().cpu() @ u
    shares = torch.einsum("nhe,he->nh", z, attn.W_O.double().cpu() @ towards) / divisor
    found = [(f"a{layer}.h{h}", shares[:, h]) for h in range(shares.shape[1])]
    if attn.o.bias is not None or (norm is not None and norm.bias is not None):
        bias = (attn.b_O.double().cpu() @ towards) / divisor + constant
        found.append((f"a{layer}.bias", bias.expand(len(z), 1)[:, 0]))
    if block.hook_mlp_out in seen:
        found.append((f"m{layer}", seen[block.hook_mlp_out] @ u))
    return found
