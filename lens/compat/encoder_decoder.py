"""`HookedEncoderDecoder`: TransformerLens's T5 on the core.

Sites have TransformerLens's names: `hook_embed` is the encoder's, and of a decoder's block `ln2` stands in front of
cross-attention and `ln3` in front of the MLP.

What is different, on purpose: a decoder's position sees only those before it, and counts distances to them, as T5 was
trained. In TransformerLens it sees what comes later too, so that logits agree for the first token of a text alone.

Letters: b batch, p source position, q target position, d d_model, v vocabulary, n new token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lens.arguments import Span
from lens.compat.encoder_config import encoder_decoder_config
from lens.compat.encoder_texts import EncoderTexts, padded
from lens.compat.ends import TokenUnembed
from lens.compat.generation import check_sampling, ends, sample_logits
from lens.compat.mounted import Mounted
from lens.encoder import Encoder
from lens.hooks import is_hooked
from lens.inputs import ModelInputs
from lens.kv import KeyValues
from lens.nearest import unknown
from lens.taps import OFF, AnyTaps
from lens.text import start_of, tokenizer_of
from lens.unembed import LogitsAt

SWAPPED = {"ln2": "ln3", "ln3": "ln2"}


class HookedEncoderDecoder(Mounted, EncoderTexts):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    """An encoder–decoder with TransformerLens's interface; see `Mounted` for its arguments."""

    described_by = staticmethod(encoder_decoder_config)
    shaped_like = "T5"

    def their_name(self, site: str) -> str:
        if site == "encoder.hook_embed":
            return "hook_embed"
        return re.sub(r"^(decoder\.\d+\.)(ln[23])\b", lambda m: m[1] + SWAPPED[m[2]], site)

    def their_path(self, path: str) -> str:
        path = re.sub(r"^encoder\.stack\.(blocks\.)?", "encoder." if ".blocks" in path else "encoder_", path)
        path = re.sub(r"^stack\.(blocks\.)?", "decoder." if ".blocks" in path else "decoder_", path)
        return self.their_name(path.replace("_ln_final", "_final_ln"))

    def _mount(self) -> None:
        super()._mount()
        assert self.encoder is not None
        self.encoder.__class__ = EncoderBlocks
        if self.cfg.unembed is not None:
            self.unembed.__class__ = PlainUnembed

    # ------------------------------------------------------------------ running

    def to_tokens(  # type: ignore[override]
        self, input: Any, move_to_device: bool = True, truncate: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Ids [b, p] of a text or texts for the encoder, and their mask [b, p] (1 where a token is real).

        Raises:
            ValueError: there is no tokenizer, or nothing to tokenise.
        """
        ids, _, mask = self.tokenized(input, move_to_device, truncate)
        return ids, mask

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Any,
        decoder_input: Any = None,
        return_type: str | None = "logits",
        one_zero_attention_mask: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        taps: AnyTaps = OFF,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        past: KeyValues | None = None,
        logits_at: LogitsAt = None,
    ) -> Any:
        """Logits [b, q, v] of the decoder, or nothing.

        Args:
            input: what the encoder reads: a text, texts, or ids [b, p]. Or both sides as `ModelInputs`.
            decoder_input: ids [b, q]; with texts, None is the token that begins every text.
            one_zero_attention_mask: 1 where a token of the source is real, [b, p].

        The rest is the core's; `attention_mask` is of the decoder's positions.

        Raises:
            ValueError: ids come without `decoder_input`; or as for `Transformer.forward`; or an unknown return type.
        """
        if return_type not in ("logits", None):
            raise ValueError(unknown("return type", return_type, ["logits"]))
        given = self.both(input, decoder_input, one_zero_attention_mask)
        out = super().forward(
            given, attention_mask=attention_mask, taps=taps, start_at_layer=start_at_layer,
            stop_at_layer=stop_at_layer, past=past, logits_at=logits_at,
        )  # fmt: skip
        return out if return_type == "logits" else None

    def both(self, input: Any, decoder_input: Any, mask: Tensor | None) -> Any:
        """What encoder and decoder read, in one value.

        Raises:
            ValueError: ids come without `decoder_input`.
        """
        if isinstance(input, ModelInputs) or (isinstance(input, Tensor) and input.is_floating_point()):
            return input
        if isinstance(input, Tensor):
            if decoder_input is None:
                raise ValueError(
                    "ids of a source need decoder_input, the ids [batch, pos] of what is said so far"
                )
            source = padded(input.to(self.device), None, mask)
        else:
            source = self.given(input, None, mask)
        if decoder_input is None:
            decoder_input = self.begun(source.n_rows)
        if not isinstance(decoder_input, Tensor):
            raise ValueError(
                f"decoder_input is ids [batch, pos], not {type(decoder_input).__name__}: give to_tokens of the text"
            )
        return replace(padded(decoder_input.to(self.device), None, None), source=source)

    def begun(self, rows: int) -> Tensor:
        """What the decoder reads before it has said anything, [rows, 1]: the configuration's token, or padding."""
        if self.cfg.start_token is not None:
            return start_of(self.cfg, rows).to(self.device)
        tokenizer: Any = tokenizer_of(self)
        return torch.full((rows, 1), tokenizer.pad_token_id, device=self.device)

    def span(self, inputs: Any, options: Mapping[str, Any]) -> Span:
        span = super().span(inputs, options)
        given = isinstance(inputs, Tensor) and not inputs.is_floating_point()
        return replace(span, encodes=True) if given or isinstance(inputs, str | list) else span

    @staticmethod
    def is_theirs(argument: Any) -> bool:
        return isinstance(argument, Tensor) or Mounted.is_theirs(argument)

    def generate(  # type: ignore[override]
        self, input: Any = "", one_zero_attention_mask: Tensor | None = None, max_new_tokens: int = 10,
        stop_at_eos: bool = True, eos_token_id: Any = None, do_sample: bool = True, top_k: int | None = None,
        top_p: float | None = None, temperature: float = 1.0, freq_penalty: float = 0.0,
        return_type: str | None = "input", verbose: bool = True,
    ) -> Any:  # fmt: skip
        """What the decoder says of a source: a text of a text, or ids [b, 1 + n] with what begins every text.

        `verbose` is taken and nothing is printed. Hooks act on every step.

        Raises:
            ValueError: an option is out of range.
        """
        check_sampling(temperature, top_k, top_p, return_type if return_type != "tensor" else "tokens")
        rows = input.shape[0] if isinstance(input, Tensor) else 1 if isinstance(input, str) else len(input)
        said = self.begun(rows)
        with torch.no_grad():
            given = self.both(input, said, one_zero_attention_mask)
            stops, fill = ends(self, stop_at_eos, eos_token_id)
            past = None if is_hooked(self) else self.new_past()
            ended = torch.zeros(rows, dtype=torch.bool, device=self.device)
            for _ in range(max_new_tokens):
                logits = self(given, past=past, logits_at=-1)[:, 0]
                drawn = temperature if do_sample else 0.0
                token = sample_logits(logits, top_k, top_p, drawn, freq_penalty, said)
                if stops:
                    token = torch.where(ended, fill, token)
                    ended = ended | torch.isin(token, torch.tensor(stops, device=token.device))
                said = torch.cat([said, token[:, None]], 1)
                if stops and bool(ended.all()):
                    break
                source = given.source if past is None else None
                given = ModelInputs(ids=said if past is None else token[:, None], source=source)
        if return_type == "str" or (return_type == "input" and not isinstance(input, Tensor)):
            tokenizer: Any = tokenizer_of(self)
            texts = [tokenizer.decode(row, skip_special_tokens=True) for row in said]
            return texts[0] if len(texts) == 1 else texts
        return said

    # ------------------------------------------------------------------ parts

    @property
    def decoder(self) -> list[Any]:
        """The decoder's blocks, with TransformerLens's names of their norms."""
        return [DecoderBlock(block) for block in self.stack.blocks]

    encoder_final_ln = property(lambda self: self.encoder.stack.ln_final)
    decoder_final_ln = property(lambda self: self.stack.ln_final)

    @property
    def layers(self) -> list[Any]:
        """The encoder's blocks, then the decoder's: the order of `W_Q`, `b_in` and the like."""
        assert self.encoder is not None
        return [*self.encoder.stack.blocks, *self.stack.blocks]

    @property
    def W_U(self) -> Tensor:
        """[d, v]; where embeddings are tied, T5 divides the stream by √d in front of it."""
        return self.unembed.linear.weight.T

    def all_head_labels(self) -> list[str]:
        """EL0H0, EL0H1, …, DL0H0, …"""
        assert self.cfg.source is not None
        sides = (("E", self.cfg.source.stack), ("D", self.cfg.stack))
        return [f"{side}L{l}H{h}" for side, c in sides for l in range(c.n_layers) for h in range(c.n_heads)]


class EncoderBlocks(Encoder):
    """The encoder, of which `model.encoder[0]` is the first block."""

    def __getitem__(self, layer: int) -> Any:
        return self.stack.blocks[layer]

    def __len__(self) -> int:
        return len(self.stack.blocks)


class PlainUnembed(TokenUnembed):
    """The unembedding by itself, without what divides the stream in front of it."""

    W_U = property(lambda self: self.linear.weight.T)  # type: ignore[assignment]  # [d, v]


class DecoderBlock:
    """A decoder's block: `ln2` is the norm in front of cross-attention, `ln3` that in front of the MLP."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, SWAPPED.get(name, name))

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.block(*args, **options)
