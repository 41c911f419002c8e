"""The loss of language models.

Letters: b batch, p position, v vocabulary.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def next_token_loss(
    logits: Float[Tensor, "b p v"],
    tokens: Int[Tensor, "b p"],
    attention_mask: Tensor | None = None,
    per_token: bool = False,
) -> Float[Tensor, "*b_q"]:
    """Cross-entropy of each token given those before it, in nats: the mean, or each, [b, p - 1].

    With `attention_mask` [b, p], only pairs of real tokens count; the others' losses are 0.
    """
    tokens = tokens.to(logits.device)
    said = logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None].long())[..., 0]
    if attention_mask is None:
        return -said if per_token else -said.mean()
    real = attention_mask.bool()[:, -tokens.shape[1] :].to(logits.device)
    pairs = real[:, :-1] & real[:, 1:]
    said = said * pairs
    return -said if per_token else -said.sum() / pairs.sum()
