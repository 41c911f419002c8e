"""Attention within windows of a map, moved from layer to layer (Swin, Liu et al. 2021, arXiv 2103.14030, §3.2).

1. Positions are a map in reading order (`StackConfig.grid`), cut into squares of `window` × `window`. Where it is no
   multiple of that, cells pad it on the right and below: they add nothing to a stream and read none, so their
   keys and values are the biases alone.
2. With `shift`, the squares lie that much further right and down, and what stands out at the end of the map wraps
   around; positions from different ends of the map do not see each other.
3. Each position attends to its square. A bias per head and displacement of key and query is added to the scores.

Untapped, all squares are one fused kernel. Scores and patterns exist only where tapped, and are then those of the
whole map, a column per position, padding cells behind them.

Letters: b batch, p position, c cell (positions, then padding), w square, s place in a square, h head, e d_head,
d d_model, t displacement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.heads import Heads, Streams, by_head
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.norm import upcast
from lens.recurrent import Weight
from lens.taps import OFF, AnyTaps
from lens.vocabulary import PATTERN, RESULT, SCORES, K, Kind, Q, V, Z


@dataclass(frozen=True, kw_only=True)
class ShiftedWindows(MixerConfig):
    """Side of the squares, and how far they are moved."""

    window: int
    shift: int = 0
    kind: Literal["shifted_windows"] = "shifted_windows"
    by_head: ClassVar[bool] = True


class Squares(NamedTuple):
    """Which cell is where, of one map."""

    place: Int[Tensor, " c"]  # of each cell, counted through all squares
    cells: Int[Tensor, " ws"]  # the inverse
    together: Int[Tensor, " c"]  # cells see each other where this is the same
    row: Int[Tensor, " c"]  # within its square
    column: Int[Tensor, " c"]


def squares(grid: tuple[int, int], cfg: ShiftedWindows, device: torch.device | None) -> Squares:
    """The squares of a map of `grid` rows and columns."""
    (rows, columns), w = grid, cfg.window

    def axis(n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Square, place in it, and whether it wraps around, of each row (or column) with padding."""
        padded = -(-n // w) * w
        moved = (torch.arange(padded, device=device) - cfg.shift) % padded
        return moved // w, moved % w, (moved >= padded - cfg.shift).long()

    (square_y, row, wraps_y), (square_x, column, wraps_x) = axis(rows), axis(columns)
    n_columns = len(square_x)
    every = torch.arange(len(square_y) * n_columns, device=device).view(-1, n_columns)
    order = torch.cat(
        [every[:rows, :columns].flatten(), every[:rows, columns:].flatten(), every[rows:].flatten()]
    )
    y, x = order // n_columns, order % n_columns
    square = square_y[y] * (n_columns // w) + square_x[x]
    place = (square * w + row[y]) * w + column[x]
    together = (2 * square + wraps_y[y]) * 2 + wraps_x[x]
    return Squares(place, place.argsort(), together, row[y], column[x])


class WindowAttention(Heads):
    """softmax(q kᵀ · scale + bias) v among the positions of a square."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__(site, cfg)
        assert isinstance(cfg.mixer, ShiftedWindows) and cfg.grid is not None
        self.windows, self.grid = cfg.mixer, cfg.grid
        self.relative = Weight((2 * self.windows.window - 1) ** 2, cfg.n_heads)
        self.hook_pos_scores = f"{site}.hook_pos_scores"
        self.hook_attn_scores, self.hook_pattern = f"{site}.hook_attn_scores", f"{site}.hook_pattern"

    def forward(
        self, inputs: Streams, frame: Frame, taps: AnyTaps = OFF, past: KeyValues | None = None
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream; `inputs` as for `Attention`."""
        q, k, v = self.projected(inputs, taps)
        at: Squares = frame.once(
            (self.windows, self.grid), lambda: squares(self.grid, self.windows, frame.device)
        )
        k, v = self.padded(k, self.k, at), self.padded(v, self.v, at)
        if taps.wants(self.hook_pos_scores, self.hook_attn_scores, self.hook_pattern):
            z = self.explicit(q, k, v, at, taps)
        else:
            z = self.fused(self.padded(q, self.q, at), k, v, at)[:, : q.shape[1]]
        return self.written(z, taps)

    def padded(self, x: Float[Tensor, "b p h e"], linear: nn.Linear, at: Squares) -> Float[Tensor, "b c h e"]:
        """With what padding cells have behind it: the map of nothing."""
        n = len(at.place) - x.shape[1]
        return x if n == 0 else torch.cat([x, by_head(linear, x.shape[2]).expand(len(x), n, -1, -1)], 1)

    def displacement(self, queries: Tensor, keys: Tensor, at: Squares) -> Int[Tensor, "q k"]:
        """Rows of the table of biases for cells that look at cells."""
        w = self.windows.window
        down = at.row[queries][:, None] - at.row[keys] + w - 1
        return down * (2 * w - 1) + at.column[queries][:, None] - at.column[keys] + w - 1

    def explicit(
        self,
        q: Float[Tensor, "b p h e"],
        k: Float[Tensor, "b c h e"],
        v: Float[Tensor, "b c h e"],
        at: Squares,
        taps: AnyTaps,
    ) -> Float[Tensor, "b p h e"]:
        """In steps that can be read and edited, on the whole map."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        cells = torch.arange(len(at.place), device=q.device)
        apart = (at.together[: q.shape[2], None] != at.together)[None, None]
        bias = self.relative.weight[self.displacement(cells[: q.shape[2]], cells, at)].permute(2, 0, 1)[None]
        bias = bias.masked_fill(apart, 0.0)
        if taps.wants(self.hook_pos_scores):
            bias = taps(self.hook_pos_scores, bias.expand(len(q), -1, -1, -1))
        scores = ((q * self.scale) @ k.mT + bias).masked_fill(apart, -torch.inf)
        pattern = upcast(taps(self.hook_attn_scores, scores)).softmax(-1).to(q.dtype)
        return (taps(self.hook_pattern, pattern) @ v).transpose(1, 2)

    def fused(
        self,
        q: Float[Tensor, "b c h e"],
        k: Float[Tensor, "b c h e"],
        v: Float[Tensor, "b c h e"],
        at: Squares,
    ) -> Float[Tensor, "b c h e"]:
        """One kernel for all squares; scores and pattern never exist."""
        n = self.windows.window**2

        def cut(x: Tensor) -> Float[Tensor, "bw h s e"]:
            return x[:, at.cells].unflatten(1, (-1, n)).flatten(0, 1).transpose(1, 2)

        z = F.scaled_dot_product_attention(
            cut(q), cut(k), cut(v), attn_mask=self.mask(len(q), at), scale=self.scale
        )
        return z.transpose(1, 2).reshape(q.shape)[:, at.place]

    def mask(self, b: int, at: Squares) -> Float[Tensor, "bw h s s2"]:
        """What is added to the scores of all squares: biases, and -inf between different ends of the map."""
        n = self.windows.window**2
        first = at.cells[:n]
        bias = self.relative.weight[self.displacement(first, first, at)].permute(2, 0, 1)[None]
        if not self.windows.shift:
            return bias
        ends = at.together[at.cells].view(-1, 1, 1, n)
        apart: Bool[Tensor, "w 1 s s2"] = ends.mT != ends
        return bias.masked_fill(apart, -torch.inf).repeat(b, 1, 1, 1)


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, ShiftedWindows)
    moved = f", moved by {m.shift}" if m.shift else ""
    return f"attention in windows of {m.window} × {m.window}{moved}, with a bias per displacement"


def sizes(c: StackConfig) -> dict[str, int]:
    """Cells of the map with its padding."""
    m = c.mixer
    assert isinstance(m, ShiftedWindows) and c.grid is not None
    rows, columns = (-(-n // m.window) * m.window for n in c.grid)
    return {"cell": rows * columns}


CELLS = "batch head pos cell"
OWN = Kind(
    "attn.hook_pos_scores", CELLS, "what displacements add to the scores; 0 between windows", extra=True
)

MIXER = Mixer(
    "shifted_windows",
    ShiftedWindows,
    WindowAttention,
    kinds=(
        Q, K, V, OWN,
        Kind(SCORES.suffix, CELLS, "scaled scores on the whole map, then on its padding; -inf between windows"),
        Kind(PATTERN.suffix, CELLS, "attention probabilities on the whole map, then on its padding"),
        Z, RESULT,
    ),
    words=words,
    path="attn",
    sizes=sizes,
)  # fmt: skip
