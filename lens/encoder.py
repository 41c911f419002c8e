"""The encoder of an encoder–decoder: its embedding and stack, run once for all that the decoder does.

Letters: b batch, k source position, p latent, d d_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from lens import arguments
from lens.config import SourceConfig
from lens.embed import Embed
from lens.encoded import Encoded
from lens.frame import Frame
from lens.inputs import ModelInputs
from lens.kv import KeyValues
from lens.stack import Stack
from lens.taps import OFF, AnyTaps

if TYPE_CHECKING:
    from lens.model import Transformer


class Encoder(nn.Module):
    """Embed, blocks, norm. Its sites begin with `encoder.`"""

    def __init__(self, cfg: SourceConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed = Embed(cfg.embed, cfg.stack.d_model, prefix="encoder.")
        self.stack = Stack(cfg.stack, "encoder", "encoder_final_ln")

    def forward(self, given: ModelInputs, frame: Frame, taps: AnyTaps = OFF) -> Encoded:
        """What the decoder looks at; `frame` is that of the source."""
        x = given.stream
        if x is None:
            x = self.embed(given.given, frame, taps, given.types)
        if self.embed.latents is not None:
            frame, x = self.latents(Encoded(x, frame.valid), frame, taps)
        x = self.stack(x, frame, taps)
        if self.stack.ln_final is not None:
            x = self.stack.ln_final(x, taps)
        return Encoded(x, frame.valid, None if frame.where is None else frame.where.expand(x.shape))

    def latents(self, read: Encoded, frame: Frame, taps: AnyTaps) -> tuple[Frame, Float[Tensor, "b p d"]]:
        """Latents that are the stream in the text's place, and their frame, which knows what they read."""
        assert self.embed.latents is not None
        x = self.embed.latents.weight.expand(read.n_rows, -1, -1)
        among = Frame(x.shape[1], causal=False, device=frame.device, dtype=frame.dtype)
        among.encoded = read
        return among, taps(self.embed.hook_latents, x)


def encoded(model: Transformer, given: ModelInputs, past: KeyValues | None, taps: AnyTaps = OFF) -> Encoded:
    """What a run's cross-attention looks at: made now, given, or kept by a run that this one continues.

    Raises:
        ValueError: there is no source, or it is too long.
    """
    assert model.encoder is not None
    source = given.source
    if source is None:
        if past is None or past.encoded is None:
            raise ValueError(f"{model.cfg.name} needs a source: see `ModelInputs.source` and `to_inputs`")
        return past.encoded.for_rows(given.n_rows)
    if isinstance(source, ModelInputs):
        source = model.encoder.embed.seen(source.to(model.device), taps)
        n = arguments.n_positions(model.encoder.cfg.embed, source)
        arguments.check_length(model.cfg, n, source=True)
        valid = arguments.validity(source.mask, None, n, source.n_rows, model.device)
        frame = Frame(n, valid=valid, causal=False, device=model.device, dtype=model.dtype)
        frame.grid = None if source.features is None else (source.features.shape[2], source.features.shape[3])
        source = model.encoder(source, model.encoder.embed.placed(frame), taps)
    return Encoded(source.stream, source.valid, source.where).for_rows(given.n_rows)
