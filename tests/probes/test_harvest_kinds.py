"""Probing models of other kinds: texts are read by an encoder, images are not read as texts."""

from __future__ import annotations

import pytest
import torch

from lens.model import Transformer
from lens.tokens import Tokenizer
from probes import harvest
from tests import zoo
from tests.parity import ours

TEXTS = ["w5 w6 w7", "w8", "w9 w10"]


def model_of(family: str, name: str) -> Transformer:
    words = Tokenizer.from_words([f"w{i}" for i in range(zoo.D_VOCAB)], bos="w1", eos="w2", pad="w0")
    model = ours(family, name)
    return Transformer.from_state(model.cfg, model.state_dict(), tokenizer=words)


def test_an_encoder_decoder_is_probed_where_it_reads() -> None:
    model = model_of("bart", "plain")
    store = harvest(model, TEXTS, "resid_post")
    assert list(store.sites) == [f"encoder.{layer}.hook_resid_post" for layer in range(3)]
    _, cache = model.run_with_cache(TEXTS, "encoder.1.hook_resid_post")
    stream = cache["encoder.1.hook_resid_post"]
    last = torch.stack([stream[0, 2], stream[1, 0], stream[2, 1]])
    assert torch.allclose(torch.as_tensor(store["encoder.1.hook_resid_post"]), last, atol=1e-5)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (
            "decoder.1.cross_attn.hook_z",
            r"tokens of texts are the positions of bart's encoder; .* 'encoder.1.attn.hook_z'",
        ),
        (("resid_post", 1), "such as 'encoder.1.hook_resid_post'"),
        (["resid_post", "decoder.0.hook_mlp_out"], "'decoder.0.hook_mlp_out' cannot be probed"),
    ],
)
def test_what_the_decoder_says_is_not_probed(sites, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        harvest(model_of("bart", "plain"), TEXTS, sites)


def test_latents_are_not_tokens() -> None:
    """Perceiver's encoder has latents for positions; its decoder has the text's."""
    model = model_of("perceiver", "twice")
    store = harvest(model, TEXTS, "resid_post")
    assert list(store.sites) == ["decoder.0.hook_resid_post"]
    _, cache = model.run_with_cache(TEXTS, "decoder.0.hook_resid_post")
    stream = cache["decoder.0.hook_resid_post"]
    expected = torch.stack([stream[0, 2], stream[1, 0], stream[2, 1]])
    assert torch.allclose(torch.as_tensor(store["decoder.0.hook_resid_post"]), expected, atol=1e-5)
    with pytest.raises(ValueError, match="positions of perceiver's decoder"):
        harvest(model, TEXTS, "encoder.1.hook_resid_post")


def test_images_are_no_texts() -> None:
    with pytest.raises(ValueError, match="vit reads images, and no text"):
        harvest(ours("vit", "classifier"), TEXTS)
