"""One head's attention pattern to what the page draws.

Shapes: q query position, k key position.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class AttentionPayload(TypedDict):
    """What `components/attention` draws. `packed`: weights [q, k] in 65536 levels, little endian, base64.

    `tokens` look at `keys`; None: at themselves. `listed`: whether they are shown as running text as well; `names` are
    what queries and keys are called.
    """

    title: str
    tokens: list[str]
    keys: list[str] | None
    packed: str
    causal: bool
    listed: bool
    names: list[str]


def without_sink(pattern: NDArray[np.floating]) -> NDArray[np.floating]:
    """A pattern [..., q, k] without its first key, the rest of each row scaled to sum to one again.

    Rows that look at nothing else stay empty.
    """
    left = np.array(pattern)
    left[..., 0] = 0.0
    total = left.sum(-1, keepdims=True)
    return np.divide(left, total, out=np.zeros_like(left), where=total > 0)


def weighted_by(pattern: NDArray[np.floating], sizes: NDArray[np.floating]) -> NDArray[np.floating]:
    """A pattern [q, k], each weight times the size [k] of what is written there, rows summing to one again.

    A key that is looked at but whose value is small contributes little (Kobayashi et al. 2020, arXiv 2004.10102).
    """
    weighted = pattern * sizes
    total = weighted.sum(-1, keepdims=True)
    return np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0)


def attention_payload(
    pattern: NDArray[np.floating],
    tokens: Sequence[str],
    *,
    title: str,
    causal: bool = True,
    keys: Sequence[str] | None = None,
    listed: bool = True,
    names: tuple[str, str] = ("query", "key"),
) -> AttentionPayload:
    """The picture of a pattern [q, k] over `tokens`, which look at themselves or at `keys`.

    Raises:
        ValueError: the pattern does not have one row per token and one column per key.
    """
    across = f" and {len(keys)} keys" if keys is not None else ""
    if pattern.shape != (len(tokens), len(tokens if keys is None else keys)):
        raise ValueError(
            f"a pattern of shape {tuple(pattern.shape)} does not fit {len(tokens)} tokens{across}"
        )
    levels = np.rint(np.clip(pattern, 0.0, 1.0) * 65535).astype("<u2")
    return {
        "title": title,
        "tokens": list(tokens),
        "keys": None if keys is None else list(keys),
        "packed": base64.b64encode(np.ascontiguousarray(levels).tobytes()).decode(),
        "causal": causal and keys is None,
        "listed": listed,
        "names": list(names),
    }
