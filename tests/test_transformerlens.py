"""Site by site against TransformerLens's bridge, on the decoders of `tests/zoo.py` with the same weights.

Every site of ours is compared with TransformerLens's activation of the same name. Where it has none, or means
something else by the name, the tables below say so; a site that is missing from them fails the test, and so does
one that is in them without need.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lens.model import Transformer
from lens.tokens import Tokenizer
from tests import zoo
from tests.parity import SPECIMENS, ours, prompts, relative_error

ELSEWHERE = (
    *"albert bert big_bird deberta_v2 distilbert longformer roberta".split(),
    *"bart marian mt5 switch_transformers t5 whisper".split(),
    *"clip detr swin vit".split(),
    *"jamba perceiver reformer".split(),
)
"""Families that are compared with Hugging Face only: encoders, encoder–decoders, models of images and hybrids, of
whose sites TransformerLens 4.3 has few, or which it does not run."""

RECURRENT = {
    "mamba": "hook_resid_pre hook_resid_post mixer.hook_in_proj",
    "mamba2": "hook_resid_pre hook_resid_post mixer.hook_in_proj",
    "rwkv": "hook_resid_pre hook_resid_mid hook_resid_post hook_mlp_in",
}
"""Families without attention, and sites of a block that TransformerLens 4.3 has for them under the same names: its
bridges wrap Hugging Face's mixers whole."""

DECODERS = [(family, name) for family, name in SPECIMENS if family not in (*ELSEWHERE, *RECURRENT)]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CLOSE = 1e-4

NOT_RUN = {
    "gpt2-unscaled": "scales scores although scale_attn_weights is False, so that its own logits are not "
    "Hugging Face's",
    "gpt_neox-sequential": "asserts that queries, keys and values have biases",
    "opt-factorised": "hands positions flattened by Hugging Face's MLP to the next attention",
    "opt-bare": "needs a final norm",
    "phi-qk_norm": "declares no norm of queries and keys",
}
"""Specimens that TransformerLens 4.3 refuses or computes wrongly, and what it does."""

SPLIT = "hook_q_input hook_k_input hook_v_input hook_attn_in attn.hook_result"
ROTATED = "attn.hook_rot_q attn.hook_rot_k"
EXPERTS = "mlp.hook_router_logits mlp.experts.hook_pre mlp.experts.hook_pre_linear mlp.experts.hook_post"
SHARED = "mlp.shared.hook_pre mlp.shared.hook_pre_linear mlp.shared.hook_post mlp.hook_shared_gate mlp.hook_shared_out"
LACKING = {
    "gpt_neo": SPLIT,
    "gptj": f"{SPLIT} {ROTATED} hook_mlp_in",
    "gpt_neox": ROTATED,
    "opt": SPLIT,
    "phi": "hook_mlp_in",
    "phi3": ROTATED,
    "mixtral": EXPERTS,
    "olmoe": EXPERTS,
    "qwen2_moe": f"{EXPERTS} {SHARED}",
    "qwen3_moe": EXPERTS,
}
"""Kinds of sites that TransformerLens 4.3 does not have: its attention for these families is Hugging Face's own
function, which cannot be split (q, k, v inputs, results) or keeps rotated queries to itself; blocks with one norm
for both branches have no second input; experts run as one fused kernel, and shared experts as they are."""

Reading = Callable[[Tensor, dict[str, Tensor], str], Tensor]


def heads_first(theirs: Tensor, mine: dict[str, Tensor], name: str) -> Tensor:
    """[b, h, p, e]: it normalises after moving heads to the front."""
    return theirs.transpose(1, 2)


def flattened(theirs: Tensor, mine: dict[str, Tensor], name: str) -> Tensor:
    """[b * p, …]: this part of Hugging Face's model works on flattened positions."""
    return theirs.reshape(mine[name].shape)


def over_all_experts(theirs: Tensor, mine: dict[str, Tensor], name: str) -> Tensor:
    """[b * p, expert], zero for those not chosen, where ours are the weights of the chosen ones."""
    chosen = mine[name.replace("weights", "indices")]
    return theirs.reshape(*chosen.shape[:2], -1).gather(-1, chosen)


READINGS: dict[tuple[str, str], Reading] = {
    (family, f"attn.{which}_norm.hook_{what}"): heads_first
    for family in ("gemma3", "qwen3", "qwen3_moe")
    for which in ("q", "k")
    for what in ("scale", "normalized")
} | {
    ("opt", "ln2.hook_scale"): flattened,
    ("opt", "ln2.hook_normalized"): flattened,
}
for _family in ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe"):
    READINGS[_family, "mlp.hook_expert_indices"] = flattened
    READINGS[_family, "mlp.hook_expert_weights"] = over_all_experts
"""The same numbers in another shape: how theirs becomes ours."""

SCORES_ARE_THE_PATTERN = ("gpt_neo", "gptj", "opt")
"""Hugging Face gives only probabilities away here, and TransformerLens calls those `hook_attn_scores` as well."""

FEWEST = 42
"""Sites compared at least, for the family with the fewest."""


def boot(family: str, name: str, folder: Path) -> Any:
    """The bridge around a copy of a specimen."""
    from transformer_lens.model_bridge import TransformerBridge

    hf = copy.deepcopy(zoo.hugging_face(family, name))
    hf.config.architectures = [type(hf).__name__]
    hf.config.save_pretrained(folder)
    names = ["<unk>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, zoo.D_VOCAB))]
    Tokenizer.from_words(names, unk="<unk>", bos="<bos>", eos="<eos>", pad="<eos>").hf.save_pretrained(folder)
    return TransformerBridge.boot_transformers(str(folder), hf_model=hf, device="cpu")


def theirs_of(bridge: Any, ids: Tensor) -> dict[str, Tensor]:
    """All activations that TransformerLens can show, in two runs: it splits inputs in two ways, not both at once."""
    seen: dict[str, Tensor] = {}
    for switches in (("attn_result", "split_qkv_input", "hook_mlp_in"), ("attn_in",)):
        for switch in switches:
            set_switch(bridge, switch, True)
        with torch.no_grad():
            logits, cache = bridge.run_with_cache(ids)
        seen = dict(cache.items()) | {"hook_logits": logits} | seen
        for switch in switches:
            set_switch(bridge, switch, False)
    return seen


def set_switch(bridge: Any, switch: str, on: bool) -> None:
    """Ask for activations that are made on demand; families that cannot make them say so."""
    try:
        getattr(bridge, f"set_use_{switch}")(on)
    except NotImplementedError:
        assert switch in ("attn_result", "split_qkv_input", "attn_in", "hook_mlp_in")


def kind(model: Transformer, name: str) -> str:
    """A site without the numbers of its layer and expert."""
    return re.sub(r"\.experts\.\d+", ".experts", model.sites[name].kind)


def error(name: str, mine: Tensor, theirs: Tensor) -> float:
    """Relative to the scale of what is compared; masked scores are alike if both are far below all others."""
    if name.endswith("hook_attn_scores"):
        masked = mine == -torch.inf
        assert (theirs[masked] < -1e4).all(), name
        mine, theirs = mine.masked_fill(masked, 0), theirs.masked_fill(masked, 0)
    assert mine.shape == theirs.shape, f"{name}: {tuple(mine.shape)}, and theirs {tuple(theirs.shape)}"
    return relative_error(mine.double(), theirs.double())


def test_the_tables_speak_of_specimens_that_exist() -> None:
    assert set(ELSEWHERE) <= {family for family, _ in SPECIMENS}
    assert set(NOT_RUN) <= {f"{family}-{name}" for family, name in DECODERS}
    assert set(LACKING) <= {family for family, _ in DECODERS}
    run = {family for family, name in DECODERS if f"{family}-{name}" not in NOT_RUN}
    assert run == {family for family, _ in DECODERS}, "every decoder family is compared"


@pytest.mark.parametrize(
    ("family", "name"),
    [pytest.param(f, n, id=f"{f}-{n}") for f, n in DECODERS if f"{f}-{n}" not in NOT_RUN],
)
def test_every_site_has_transformerlens_value(family: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformer_lens.model_bridge")
    model, ids = ours(family, name), prompts()
    logits, cache = model.run_with_cache(ids, list(model.sites))
    mine, theirs = {**cache}, theirs_of(boot(family, name, tmp_path), ids)
    lacking = {kind(model, site) for site in mine if site not in theirs}
    exist = {kind(model, site) for site in mine}
    assert lacking == exist & set(LACKING.get(family, "").split())
    compared = 0
    for site, x in mine.items():
        if site in theirs:
            y = theirs[site]
            if family in SCORES_ARE_THE_PATTERN and site.endswith("hook_attn_scores"):
                assert torch.equal(y, theirs[site.replace("attn_scores", "pattern")])
                continue
            read = READINGS.get((family, kind(model, site)))
            y = y if read is None else read(y, mine, site)
            assert error(site, x, y) < CLOSE, site
            compared += 1
    assert torch.equal(logits, mine["hook_logits"])
    assert compared >= FEWEST


@pytest.mark.parametrize("family", RECURRENT)
def test_sites_of_recurrent_models_that_both_have(family: str, tmp_path: Path) -> None:
    pytest.importorskip("transformer_lens.model_bridge")
    name = "untied" if family == "mamba2" else "tied"
    model, ids = ours(family, name), prompts()
    mine = model.run_with_cache(ids, list(model.sites))[1]
    theirs = theirs_of(boot(family, name, tmp_path), ids)
    shared = [site for site in mine if site in theirs]
    if family == "rwkv":  # whose norm on the embedding it counts to the first block
        shared.remove("blocks.0.hook_resid_pre")
    assert {f"blocks.1.{kind}" for kind in RECURRENT[family].split()} <= set(shared)
    for site in shared:
        assert error(site, mine[site], theirs[site]) < CLOSE, site


def test_the_comparison_notices_a_site_in_the_wrong_place() -> None:
    """Neighbouring sites differ by far more than what is allowed."""
    model = ours("llama", "untied")
    cache = model.run_with_cache(prompts())[1]
    for a, b in (
        ("resid_pre", "resid_mid"),
        ("resid_mid", "resid_post"),
        ("q", "rot_q"),
        ("pre", "pre_linear"),
    ):
        assert error(a, cache[a, 1], cache[b, 1]) > 100 * CLOSE
    assert error("scale", cache["scale", 1, "ln1"], cache["scale", 1, "ln2"]) > 100 * CLOSE
