"""Records what TransformerLens 2.18 answers to `calls_encoders.py` and `calls_parts.py`; see `record.py`.

Its T5 decoder sees what comes later, and counts distances on both sides. Here it is given the mask and the buckets that
T5 has (arXiv 1910.10683, §2.1), so that its answers are T5's; `unmasked` in the file is what it says by itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformer_lens import HookedEncoder, HookedEncoderDecoder, HookedTransformerConfig
from transformer_lens.BertNextSentencePrediction import BertNextSentencePrediction
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.compat import calls, calls_encoders, calls_parts
from tests.compat.record import HERE, made, write


def tokenizer(kind: str) -> Any:
    """One id per word; BERT's texts end and begin with special tokens, T5's end with one."""
    backend = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(calls_encoders.WORDS)}, unk_token="<pad>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(t, special=True) for t in calls_encoders.WORDS[:4]])
    forms = {
        "bert": ("<cls> $A <sep>", "<cls> $A <sep> $B:1 <sep>:1"),
        "t5": ("$A <sep>", "$A <sep> $B <sep>"),
    }
    single, pair = forms[kind]
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<cls>", 0), ("<sep>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<cls>", sep_token="<sep>", eos_token="<sep>", pad_token="<pad>",
        mask_token="<mask>", name_or_path="words",
    )  # fmt: skip


def like_t5(model: HookedEncoderDecoder) -> None:
    """A causal mask, and buckets for what was said before, in the decoder."""
    for block in model.decoder:
        forward = block.forward

        def masked(resid_pre: torch.Tensor, forward: Any = forward, **options: Any) -> torch.Tensor:
            n = resid_pre.shape[1]
            later = torch.full((n, n), -torch.inf).triu(1)[None, None]
            return forward(resid_pre=resid_pre, additive_attention_mask=later, **options)

        block.forward = masked
    attn = model.decoder[0].attn
    bucket = attn._relative_position_bucket

    def before(distance: torch.Tensor, bidirectional: bool = True, **options: Any) -> torch.Tensor:
        return bucket(distance, bidirectional=False, **options)

    attn._relative_position_bucket = before


def filled(model: Any) -> dict[str, torch.Tensor]:
    """Random weights, in the model and as they are."""
    weights = calls.noise(model.state_dict())
    model.load_state_dict(weights, strict=False)
    return weights


def save(stem: str, found: dict[str, torch.Tensor], words: Any, weights: dict[str, torch.Tensor]) -> None:
    write(
        found | {f"weights/{name}": x for name, x in weights.items()},
        HERE / "reference" / f"{stem}.safetensors",
    )
    (HERE / "reference" / f"{stem}.json").write_text(json.dumps(words, indent=1) + "\n")


def record_encoder() -> None:
    model = HookedEncoder(HookedTransformerConfig(**calls_encoders.BERT), tokenizer("bert"))
    weights = filled(model)
    save("encoder", *calls_encoders.of_encoder(model, BertNextSentencePrediction(model)), weights)


def record_encoder_decoder() -> None:
    model = HookedEncoderDecoder(HookedTransformerConfig(**calls_encoders.T5), tokenizer("t5"))
    weights = filled(model)
    tokens = calls_encoders.ids()
    unmasked = model(tokens, tokens[:, :3])
    like_t5(model)
    found, words = calls_encoders.of_encoder_decoder(model)
    save("encoder_decoder", {**found, "unmasked": unmasked}, words, weights)


def record_parts() -> None:
    found = {}
    for name in calls.CONFIGS:
        for processed in (False, True):
            of = calls_parts.of_parts(made(name, processed)[0])
            found |= {f"{name}/{processed}/{key}": x for key, x in of.items()}
    write(found, HERE / "reference" / "parts.safetensors")


if __name__ == "__main__":
    for record in (record_encoder, record_encoder_decoder, record_parts):
        with torch.no_grad():
            record()
