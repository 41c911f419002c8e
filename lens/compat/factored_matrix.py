"""A matrix A B kept in its factors, such as a head's W_Q W_Kᵀ, of rank d_head, never made in full unless asked for.

Letters: l rows of A, m inner, r columns of B; `...` leading axes, such as layer and head.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lens.processing import svd_of_product

AT_ONCE = 2**24
"""Entries of products that composition scores have in memory at once."""


class FactoredMatrix:
    """A [..., l, m] times B [..., m, r]; leading axes broadcast.

    Raises:
        ValueError: the inner axes disagree.
    """

    def __init__(self, A: Tensor, B: Tensor) -> None:
        if A.shape[-1] != B.shape[-2]:
            raise ValueError(f"the inner axes of {tuple(A.shape)} and {tuple(B.shape)} disagree")
        leading = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        self.A, self.B = A.expand(*leading, *A.shape[-2:]), B.expand(*leading, *B.shape[-2:])
        self.ldim, self.mdim, self.rdim = A.shape[-2], A.shape[-1], B.shape[-1]
        self.has_leading_dims = bool(leading)
        self.shape = torch.Size([*leading, self.ldim, self.rdim])

    @property
    def AB(self) -> Tensor:
        """The product, [..., l, r]."""
        return self.A @ self.B

    @property
    def BA(self) -> Tensor:
        """The other product, [..., m, m], of a square matrix; it has the same eigenvalues.

        Raises:
            ValueError: it is not square.
        """
        if self.ldim != self.rdim:
            raise ValueError(f"BA is made of square matrices, not of {self.ldim} × {self.rdim}")
        return self.B @ self.A

    @property
    def T(self) -> FactoredMatrix:
        return FactoredMatrix(self.B.mT, self.A.mT)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        return self.A, self.B

    def __matmul__(self, other: Tensor | FactoredMatrix) -> Any:
        """A product with another factored matrix (the smaller inner axis is kept) or a matrix, in factors; with a
        vector [r], a vector."""
        if isinstance(other, FactoredMatrix):
            between = self.B @ other.A
            if self.mdim > other.mdim:
                return FactoredMatrix(self.A @ between, other.B)
            return FactoredMatrix(self.A, between @ other.B)
        if other.ndim < 2:
            return (self.A @ (self.B @ other[..., None]))[..., 0]
        if self.rdim > self.mdim:
            return FactoredMatrix(self.A, self.B @ other)
        return FactoredMatrix(self.AB, other)

    def __rmatmul__(self, other: Tensor) -> Any:
        """The product with a matrix on the left, in factors; with a vector [l], a vector."""
        if other.ndim < 2:
            return ((other[..., None, :] @ self.A) @ self.B)[..., 0, :]
        if self.ldim > self.mdim:
            return FactoredMatrix(other @ self.A, self.B)
        return FactoredMatrix(other, self.AB)

    def __mul__(self, scalar: float | Tensor) -> FactoredMatrix:
        return FactoredMatrix(self.A * scalar, self.B)

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> FactoredMatrix:
        """A part, by leading axes, then rows, then columns; the last two axes stay."""
        index = index if isinstance(index, tuple) else (index,)
        n = self.ndim - 2
        place = (*index, *[slice(None)] * (self.ndim - len(index)))
        rows, columns = (slice(i, i + 1 or None) if isinstance(i, int) else i for i in place[n:])
        return FactoredMatrix(self.A[place[:n]][..., rows, :], self.B[place[:n]][..., :, columns])

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = svd_of_product(self.A, self.B)
        return u, s, vh.mT

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U [..., l, m], S [..., m] and V [..., r, m] with U S Vᵀ = A B, largest first."""
        return self._svd

    @property
    def U(self) -> Tensor:
        return self._svd[0]

    @property
    def S(self) -> Tensor:
        return self._svd[1]

    @property
    def Vh(self) -> Tensor:
        """V [..., r, m]; the name is TransformerLens's."""
        return self._svd[2]

    @property
    def eigenvalues(self) -> Tensor:
        """The m eigenvalues of a square matrix that need not be zero."""
        return torch.linalg.eig(self.BA).eigenvalues

    def norm(self) -> Tensor:
        """Frobenius norm, [...]."""
        return self.S.pow(2).sum(-1).sqrt()

    def make_even(self) -> FactoredMatrix:
        """The same with both factors' columns orthogonal and of the same lengths."""
        u, s, v = self._svd
        root = s.sqrt()
        return FactoredMatrix(u * root[..., None, :], root[..., :, None] * v.mT)

    def collapse_l(self) -> Tensor:
        """S Vᵀ, [..., m, r]: an orthogonal map on the left taken off."""
        return self.S[..., :, None] * self.Vh.mT

    def collapse_r(self) -> Tensor:
        """U S, [..., l, m]: an orthogonal map on the right taken off."""
        return self.U * self.S[..., None, :]

    def get_corner(self, k: int = 3) -> Tensor:
        return (self.A[..., :k, :] @ self.B[..., :, :k])[..., :k, :k]

    def unsqueeze(self, k: int) -> FactoredMatrix:
        return FactoredMatrix(self.A.unsqueeze(k), self.B.unsqueeze(k))

    def __repr__(self) -> str:
        return f"FactoredMatrix: Shape({tuple(self.shape)}), Hidden Dim({self.mdim})"


def composition_scores(left: FactoredMatrix, right: FactoredMatrix, broadcast_dims: bool = True) -> Tensor:
    """|A B| / |A| |B| in Frobenius norms, of every left with every right, [*left leading, *right leading].

    Source: "A Mathematical Framework for Transformer Circuits" (2021), on virtual weights.
    """
    a, b = left.collapse_l(), right.collapse_r()  # [..., m, d], [..., d, m]: small, with the products' norms
    if not broadcast_dims:
        return torch.linalg.matrix_norm(a @ b) / torch.linalg.matrix_norm(a) / torch.linalg.matrix_norm(b)
    rows, columns = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
    beside = columns.transpose(0, 1).flatten(
        1
    )  # [d, n m]: every right next to the other, so that none is repeated
    width = max(1, AT_ONCE // (rows.shape[1] * beside.shape[1]))
    products = (part.flatten(0, 1) @ beside for part in rows.split(width))
    squares = [
        x.square().view(-1, rows.shape[1], len(columns), columns.shape[-1]).sum((1, 3)) for x in products
    ]
    norms = torch.cat(squares).sqrt().view(*a.shape[:-2], *b.shape[:-2])
    lengths = torch.linalg.matrix_norm(a)[(..., *[None] * (b.ndim - 2))]
    return norms / lengths / torch.linalg.matrix_norm(b)
