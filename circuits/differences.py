"""The differences of all senders in one run, written one after another and read as sums along edges.

All of them lie in one buffer: a sum over many senders is then one matrix product without a copy. Autograd does
not follow writes into a buffer, so where gradients are wanted each write and each read is a step of its own,
whose gradients are kept in a second buffer. A token that passes from step to step makes autograd go back
through them in the opposite order: every read that saw a sender comes before that sender's write.

Letters: c circuit, r receiver, s sender, x all pairs, positions and entries of the stream.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _Held:
    """The differences themselves and their gradients: what autograd's nodes hold on to.

    It knows nothing of the token, which leads to those nodes: otherwise each would keep the other alive.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.gradient: Tensor | None = None

    def gradients(self) -> Tensor:
        """The gradients of the differences, as far as autograd has come."""
        if self.gradient is None:
            self.gradient = torch.zeros_like(self.values)
        return self.gradient


class Room:
    """Memory that one run after another writes into: fresh pages are slow to come by."""

    def __init__(self) -> None:
        self.held = torch.empty(0)

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A tensor of that shape with anything in it; whoever took one before must be done with it."""
        n = math.prod(shape)
        if len(self.held) < n or (self.held.dtype, self.held.device) != (like.dtype, like.device):
            self.held = torch.empty(0)  # freed first
            self.held = torch.empty(n, dtype=like.dtype, device=like.device)
        return self.held[:n].view(shape)


class Differences:
    """Differences of `n_senders` senders, of `width` entries in each of `copies` circuits, in some room.

    With `grad` the sums can be differentiated, once, with respect to masks and differences.
    """

    def __init__(
        self, copies: int, n_senders: int, width: int, like: Tensor, grad: bool, room: Room | None = None
    ) -> None:
        self.values = (room or Room()).take((copies, n_senders, width), like)
        self.held = _Held(self.values)
        self.filled = 0
        self.token = torch.zeros((), requires_grad=True) if grad else None

    def write(self, place: int, difference: Float[Tensor, "c x"]) -> None:
        """Keep the difference of the sender at `place`; places come in order, those left out are zero."""
        self.values[:, self.filled : place] = 0
        if self.token is None:
            self.values[:, place] = difference
        else:
            self.token = _Write.apply(self.token, difference, self.held, place)
        self.filled = place + 1

    def sums(
        self, masks: Float[Tensor, "c r s"], start: int = 0, known: Float[Tensor, "c r x"] | None = None
    ) -> Float[Tensor, "c r x"]:
        """The sum of the differences so far, from sender `start` on, along the edges into each receiver.

        `masks` are of all senders; `known` is added, the sum over the senders before.
        """
        masks = masks[:, :, start : self.filled]
        if self.token is not None:
            made: Any = _Sum.apply(self.token, masks, self.held, start)
            return made if known is None else made + known
        values = self.values[:, start : self.filled]
        return masks @ values if known is None else torch.baddbmm(known, masks, values)


class _Write(torch.autograd.Function):
    """token, difference → token."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, difference: Tensor, held: _Held, place: int) -> Tensor:
        held.values[:, place] = difference
        ctx.held, ctx.place = held, place
        return token.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], ctx.held.gradients()[:, ctx.place], None, None


class _Sum(torch.autograd.Function):
    """token, masks → sums."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, masks: Tensor, held: _Held, start: int) -> Tensor:
        ctx.held, ctx.senders = held, slice(start, start + masks.shape[2])
        ctx.save_for_backward(masks)
        return masks @ held.values[:, ctx.senders]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (masks,), (grad,) = ctx.saved_tensors, grads
        to_masks = grad @ ctx.held.values[:, ctx.senders].mT if ctx.needs_input_grad[1] else None
        ctx.held.gradients()[:, ctx.senders] += masks.mT @ grad
        return torch.zeros(()), to_masks, None, None
