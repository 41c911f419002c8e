"""Models that TransformerLens runs: our sites, edits and gradients, against our own models and Hugging Face."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers
from torch import Tensor

import lens
from circuits import Pairs, attribute, patch
from circuits.attribute_nodes import attribute_nodes
from lens.bridge import Bridged
from lens.model import Transformer
from lens.taps import Taps
from probes import harvest
from probes.reading import probed_sites, read
from tests.circuits.naive import pairs_for

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32},
    "llama": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 32,
    },
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4},
    "stablelm": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 32, "partial_rotary_factor": 0.5,
    },
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4},
    "bert": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
        "max_position_embeddings": 32,
    },
}  # fmt: skip
OURS, THEIRS = ("gpt2", "llama"), ("bloom", "stablelm", "falcon")
Folders = dict[str, Path]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def hugging_face(kind: str, folder: Path) -> Any:
    """A tiny model with wide random weights, saved."""
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=60, bos_token_id=1, eos_token_id=2, **SIZES[kind]
    )
    auto = transformers.AutoModelForMaskedLM if kind == "bert" else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        weight.data.normal_(std=0.3, generator=generator)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    found = {kind: tmp_path_factory.mktemp("bridge") / kind for kind in SIZES}
    for kind, folder in found.items():
        hugging_face(kind, folder)
    return found


def bridged(folders: Folders, kind: str) -> Bridged:
    model = lens.load(folders[kind], device="cpu", backend="transformer-lens")
    assert isinstance(model, Bridged)
    return model


def ids() -> Tensor:
    return torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1))


def finite(x: Tensor) -> Tensor:
    return torch.where(x < -1e30, 0, x)


@pytest.mark.parametrize("kind", OURS)
def test_every_site_is_what_our_own_model_has_there(folders: Folders, kind: str) -> None:
    theirs, ours = bridged(folders, kind), lens.load(folders[kind], device="cpu")
    both = [name for name in ours.sites if name in theirs.sites]
    assert {name for name in ours.sites if name not in both} == {f"blocks.{i}.hook_attn_in" for i in (0, 1)}
    expected, want = ours.run_with_cache(ids(), both)
    logits, found = theirs.run_with_cache(ids(), both)
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    for name in both:
        torch.testing.assert_close(finite(found[name]), finite(want[name]), rtol=0, atol=2e-5, msg=name)


@pytest.mark.parametrize("kind", OURS)
def test_edits_gradients_and_parts_of_runs_are_ours(folders: Folders, kind: str) -> None:
    theirs, ours = bridged(folders, kind), lens.load(folders[kind], device="cpu")
    sites = [
        "blocks.1.attn.hook_pattern",
        "blocks.0.hook_q_input",
        "blocks.1.hook_resid_mid",
        "blocks.0.attn.hook_z",
    ]
    for site in sites:
        taken = [m(ids(), taps=Taps(edits={site: lambda x: x.flip(0) * 0.5})) for m in (theirs, ours)]
        torch.testing.assert_close(*taken, rtol=0, atol=2e-5, msg=site)
        graphs = []
        for model in (theirs, ours):
            logits, cache = model.run_with_cache(ids(), [site], grad=True)
            graphs.append(torch.autograd.grad(logits[:, -1, 5].sum(), cache[site])[0])
        torch.testing.assert_close(*graphs, rtol=0, atol=1e-4, msg=site)
    for options in (
        {"stop_at_layer": 1},
        {"stop_at_layer": 2},
        {"logits_at": -1},
        {"logits_at": slice(2, 4)},
    ):
        torch.testing.assert_close(theirs(ids(), **options), ours(ids(), **options), rtol=0, atol=2e-5)
    stream = ours(ids(), stop_at_layer=1)
    torch.testing.assert_close(theirs(stream, start_at_layer=1), ours(ids()), rtol=0, atol=2e-5)
    torch.testing.assert_close(theirs.to_logits(stream), ours.to_logits(stream), rtol=0, atol=2e-5)
    with theirs.hooks([("z", lambda x, hook: x * 0)]):
        inside = theirs(ids())
    torch.testing.assert_close(
        inside, ours.run_with_hooks(ids(), [("z", lambda x, hook: x * 0)]), rtol=0, atol=2e-5
    )
    torch.testing.assert_close(theirs(ids()), ours(ids()), rtol=0, atol=2e-5)  # nothing is left


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", OURS)
def test_padding_does_not_count(folders: Folders, kind: str, left: bool) -> None:
    theirs, ours = bridged(folders, kind), lens.load(folders[kind], device="cpu")
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, : 2 if left else None] = not left
    if not left:
        mask[1, 5:] = False
    found, want = (m(ids(), attention_mask=mask)[mask] for m in (theirs, ours))
    torch.testing.assert_close(found, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", THEIRS)
def test_a_family_that_is_not_here_gives_hugging_faces_logits(folders: Folders, kind: str) -> None:
    with pytest.raises(ValueError, match="not a known model type"):
        lens.load(folders[kind])
    model = bridged(folders, kind)
    config = transformers.AutoConfig.from_pretrained(folders[kind])
    made = transformers.AutoModelForCausalLM.from_pretrained(folders[kind], config=config)
    torch.testing.assert_close(model(ids()), made(ids()).logits.detach(), rtol=0, atol=2e-5)
    cache = model.activations(ids(), ["z", "resid_post", "pattern"])
    assert cache["z", 1].shape == (3, 7, 4, 4)
    torch.testing.assert_close(cache["pattern", 0].sum(-1), torch.ones(3, 4, 7))


@pytest.mark.parametrize("site", ["z", "resid_pre", "mlp_out", "post"])
@pytest.mark.parametrize("denoise", [False, True])
def test_exact_patching_is_that_of_our_own_model(folders: Folders, site: str, denoise: bool) -> None:
    theirs, ours = bridged(folders, "llama"), lens.load(folders["llama"], device="cpu")
    pairs = pairs_for(ours)
    found, want = (patch(m, pairs, site, denoise=denoise) for m in (theirs, ours))
    assert found.axes == want.axes
    torch.testing.assert_close(found.per_example, want.per_example, rtol=0, atol=5e-5)


def test_patching_by_span_by_unit_and_with_constants(folders: Folders) -> None:
    theirs, ours = bridged(folders, "gpt2"), lens.load(folders["gpt2"], device="cpu")
    pairs = pairs_for(ours, padded=True)
    for options in (
        {"by_position": True}, {"spans": [3, 4]}, {"units": [(0, 1), (1, 3)]}, {"ablation": "mean"},
        {"ablation": "noise"}, {"max_memory": "1MB"},
    ):  # fmt: skip
        found, want = (patch(m, pairs, "z", **options).per_example for m in (theirs, ours))
        torch.testing.assert_close(found, want, rtol=0, atol=5e-5, equal_nan=True)


@pytest.mark.parametrize("method", ["atp", "atp-ig", "clean-corrupted"])
def test_attribution_of_nodes_is_that_of_our_own_model(folders: Folders, method: str) -> None:
    theirs, ours = bridged(folders, "llama"), lens.load(folders["llama"], device="cpu")
    pairs = pairs_for(ours)
    for site in ("z", "k", "resid_mid"):
        found, want = (attribute_nodes(m, pairs, method, site=site) for m in (theirs, ours))
        torch.testing.assert_close(found.per_example, want.per_example, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", THEIRS)
def test_circuits_of_a_family_that_is_not_here(folders: Folders, kind: str) -> None:
    """Small patches are as their gradients say; each head's effect is that of one naive run."""
    model = bridged(folders, kind)
    pairs = pairs_for(model)
    effects = patch(model, pairs, "z").per_example
    corrupt = model.activations(pairs.corrupt, ["blocks.1.attn.hook_z"])["z", 1]

    def put(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, 2] = corrupt[:, :, 2]
        return x

    rows = torch.arange(len(pairs))
    runs = [
        model(pairs.clean, logits_at=-1, taps=t)[:, 0]
        for t in (Taps(), Taps(edits={"blocks.1.attn.hook_z": put}))
    ]
    clean, patched = (x[rows, pairs.answers] - x[rows, pairs.wrong] for x in runs)
    torch.testing.assert_close(effects[1, 2], patched - clean, rtol=0, atol=5e-5)
    assert attribute_nodes(model, pairs).effect.abs().max() > 0


def test_what_needs_blocks_says_so(folders: Folders) -> None:
    model = bridged(folders, "bloom")
    pairs: Pairs = pairs_for(model)
    with pytest.raises(ValueError, match="TransformerLens runs bloom"):
        attribute(model, pairs, "eap")
    with pytest.raises(ValueError, match="no run of it can stand on a past"):
        model.new_past()
    with pytest.raises(ValueError, match="is run by TransformerLens"):
        lens.save(model, "never")


def test_a_site_that_does_not_fire_is_named(folders: Folders) -> None:
    model = bridged(folders, "bloom")
    with pytest.raises(
        ValueError, match=r"'blocks.1.hook_mlp_in' is not there in bloom, which .* runs: it does not fire"
    ):
        model.run_with_cache(ids(), ["blocks.1.hook_mlp_in"])
    with pytest.raises(ValueError, match="did you mean"):
        model.run_with_cache(ids(), ["blocks.1.hook_resid_prae"])


def test_an_edit_that_the_bridge_discards_is_refused(folders: Folders) -> None:
    model = bridged(folders, "bert")
    seen = model.activations(ids(), ["pattern"])  # reading is all right
    assert seen["pattern", 0].shape == (3, 4, 7, 7)
    with pytest.raises(ValueError, match=r"edits at 'blocks.0.attn.hook_pattern' have no effect in bert"):
        model(ids(), taps=Taps(edits={"blocks.0.attn.hook_pattern": torch.zeros_like}))
    assert model(ids(), taps=Taps(edits={"blocks.0.hook_resid_post": torch.zeros_like})).isfinite().all()


def test_probes_read_a_bridged_model(folders: Folders) -> None:
    theirs, ours = bridged(folders, "llama"), lens.load(folders["llama"], device="cpu")
    texts = [[5, 6, 7], [8, 9, 10, 11, 12]]

    def vectors(model: Transformer) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        sites = probed_sites(model, ["resid_post", "z"])
        read(model, texts, np.array([0, 1]), np.array([[2, 3], [1, 4]]), sites, found.__setitem__)
        return found

    one, other = vectors(theirs), vectors(ours)
    assert one.keys() == other.keys()
    for site, x in one.items():
        torch.testing.assert_close(x, other[site], rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match=r"'blocks.0.hook_mlp_in' is not there in bloom"):
        probed_sites(bridged(folders, "bloom"), ["blocks.0.hook_mlp_in"])


def test_threads_do_not_see_each_others_edits(folders: Folders) -> None:
    model = bridged(folders, "gpt2")
    factors = [0.0, 0.5, 1.0, 2.0] * 4

    def run(factor: float) -> Tensor:
        return model(ids(), taps=Taps(edits={"blocks.0.attn.hook_z": lambda x: x * factor}))

    want = {factor: run(factor) for factor in set(factors)}
    with ThreadPoolExecutor(4) as pool:
        for factor, found in zip(factors, pool.map(run, factors), strict=True):
            torch.testing.assert_close(found, want[factor], rtol=0, atol=0)
    torch.testing.assert_close(model(ids()), want[1.0], rtol=0, atol=1e-6)


def test_a_saved_folder_with_a_tokenizer_reads_texts(folders: Folders, tmp_path: Path) -> None:
    """The tokenizer has a token that begins texts, and does not say where it is from."""
    folder = tmp_path / "worded"
    shutil.copytree(folders["bloom"], folder)
    words = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, 60))]
    backend = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<pad>"
    ).save_pretrained(folder)
    model = lens.load(folder, device="cpu", backend="transformer-lens")
    clean, corrupt = ["w3 w4 w5", "w9 w8 w7"], ["w3 w6 w5", "w9 w4 w7"]
    pairs = Pairs.from_text(model, clean, corrupt, ["w10", "w11"], ["w12", "w13"])
    found = patch(model, pairs, "z")
    assert found.per_example.shape[-1] == 2 and found.per_example.isfinite().all()
    read_off = harvest(model, clean, "resid_post")
    cache = model.activations(clean, ["resid_post"])
    torch.testing.assert_close(read_off["blocks.1.hook_resid_post"], cache["resid_post", 1][:, -1])
