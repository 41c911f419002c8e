"""What Hugging Face's Reformer shows: both streams around every block, and patterns of whole texts.

The library keeps patterns as its chunks lie, hash by hash; here each goes back to the query and the key that it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from lens.inputs import ModelInputs


def seen(hf: Any, given: ModelInputs) -> dict[str, Tensor]:
    """Streams, patterns and logits by the names of `tests/parity.py`, of a text without padding.

    Version 5 of the library forgets the bias of its head, which earlier ones add.
    """
    assert given.mask is None and given.ids is not None
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for layer, block in enumerate(hf.base_model.encoder.layers):
            stack.enter_context(_watched(block, layer, given.n, found))
        with torch.no_grad():
            out = hf(given.ids, use_cache=False)
    if "logits" in out:
        found["logits"] = out.logits + hf.lm_head.bias
    else:
        found["logits"] = out.last_hidden_state
    return found


@contextmanager
def _watched(block: Any, layer: int, n: int, found: dict[str, Tensor]) -> Iterator[None]:
    """Record the streams around one block, and the pattern of its attention."""
    attention = block.attention.self_attention

    def streams(module: Any, args: Any, options: Any, output: Any) -> None:
        before = torch.cat([options["prev_attn_output"], options["hidden_states"]], -1)
        found[f"resid_pre {layer}"] = before[:, :n]
        found[f"resid_post {layer}"] = torch.cat([output.attn_output, output.hidden_states], -1)[:, :n]
        if not hasattr(attention, "query_key"):
            found[f"pattern {layer}"] = _of_chunks(attention, output.attention_probs, n)

    def local(module: Any, args: Any, options: Any) -> tuple[Any, Any]:
        return args, {**options, "output_attentions": True}

    handles = [
        block.register_forward_hook(streams, with_kwargs=True),
        block.attention.register_forward_pre_hook(local, with_kwargs=True),
    ]
    try:
        if hasattr(attention, "query_key"):
            with patch.object(attention, "_attend", _recorded(attention, layer, n, found)):
                yield
        else:
            yield
    finally:
        for handle in handles:
            handle.remove()


def _recorded(attention: Any, layer: int, n: int, found: dict[str, Tensor]) -> Callable[..., Any]:
    attend = attention._attend

    def recorded(**given: Any) -> Any:
        out, total, pattern = attend(**given)
        place = given["sorted_bucket_idx_per_hash"]
        if given["do_standard_self_attention"]:
            found[f"pattern {layer}"] = pattern[:, :, :n, :n]
        else:
            found[f"pattern {layer}"] = _of_hashes(attention, pattern, total, place)[:, :, :n, :n]
        return out, total, pattern

    return recorded


def _of_chunks(attention: Any, pattern: Tensor, n: int) -> Tensor:
    """Local attention's: [b, h, chunk, place, key around]."""
    if pattern.ndim == 4:
        return pattern[:, :, :n, :n]
    b, h, n_chunks, width = pattern.shape[:4]
    place = torch.arange(n_chunks * width).expand(b, h, -1).unflatten(2, (n_chunks, width))
    return _placed(attention, pattern, place)[:, :, :n, :n]


def _of_hashes(attention: Any, pattern: Tensor, total: Tensor, place: Tensor) -> Tensor:
    """The patterns of all hashes, each with its share: the exponential of its total."""
    n_hashes, length = attention.num_hashes, place.shape[-1] // attention.num_hashes
    slots = place.unflatten(2, (n_hashes, length))
    totals = torch.empty_like(slots, dtype=total.dtype).scatter_(
        3, slots, total.unflatten(2, (n_hashes, length))
    )
    shares = totals.softmax(2).gather(3, slots).flatten(2).unflatten(2, pattern.shape[2:4])
    return _placed(attention, pattern * shares[..., None], place.unflatten(2, pattern.shape[2:4]))


def _placed(attention: Any, pattern: Tensor, place: Tensor) -> Tensor:
    """[b, h, chunk, query, key around] added up where queries and keys are in the text."""
    around = attention._look_adjacent(place, attention.num_chunks_before, attention.num_chunks_after)
    n = int(place.max()) + 1
    index = place[..., :, None] * n + around[..., None, :]
    whole = pattern.new_zeros(*pattern.shape[:2], n * n)
    return whole.scatter_add_(2, index.flatten(2), pattern.flatten(2)).unflatten(2, (n, n))
