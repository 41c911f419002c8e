"""Every file in `lens/families/` is picked up here and read against its specimens in `tests/zoo.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lens.config import ModelConfig
from lens.family import families, find, read, write
from lens.model import Transformer
from lens.parameters import aliases_of, shapes_of
from tests import zoo
from tests.parity import FAMILIES, each_specimen, ours


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_registered_and_has_specimens(family: str) -> None:
    assert families()[family].name == family, f"lens/families/{family}.py: FAMILY.name must be {family!r}"
    assert zoo.ZOO.get(family), (
        f"lens/families/{family}.py has no specimen: add {family!r} to ZOO in tests/zoo.py"
    )


def test_zoo_has_no_strangers() -> None:
    assert set(zoo.ZOO) == set(FAMILIES)


def test_find_names_the_nearest_model_types() -> None:
    assert find({"model_type": "gpt2"}).name == "gpt2"
    with pytest.raises(ValueError, match="'lama' is not a known model type; did you mean 'llama'"):
        find({"model_type": "lama"})
    with pytest.raises(ValueError, match="no model_type"):
        find({})


# ------------------------------------------------------------------ configs and weights


@each_specimen
def test_config_reads_the_same_in_memory_saved_and_in_the_older_form(family: str, name: str) -> None:
    hf = zoo.config(zoo.ZOO[family][name])
    cfg = find(hf.to_dict()).config(hf.to_dict())
    assert cfg.family == family
    assert ModelConfig.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    saved = json.loads(hf.to_json_string(use_diff=True))
    older = {k: v for k, v in saved.items() if k not in ("rope_parameters", "layer_types")} | legacy_rope(
        saved
    )
    for variant in (saved, older):
        assert find(variant).config(variant) == replace(cfg, name=variant.get("_name_or_path", cfg.name))


def legacy_rope(saved: dict[str, Any]) -> dict[str, Any]:
    """Rope parameters as before transformers 5, and layer types where they cannot be derived."""
    found: dict[str, Any] = {}
    if saved["model_type"] == "gemma3_text":
        found["layer_types"] = saved["layer_types"]
    parameters = dict(saved.get("rope_parameters") or {})
    if "full_attention" in parameters:
        local, parameters = parameters["sliding_attention"], dict(parameters["full_attention"])
        found["rope_local_base_freq"] = local["rope_theta"]
    if not parameters:
        return found
    neox = saved["model_type"] == "gpt_neox"
    found["rotary_emb_base" if neox else "rope_theta"] = parameters.pop("rope_theta")
    if (fraction := parameters.pop("partial_rotary_factor", None)) is not None:
        found["rotary_pct" if neox else "partial_rotary_factor"] = fraction
    kind = parameters.pop("rope_type")
    found["rope_scaling"] = None if kind == "default" else {**parameters, "type": kind}
    return found


@each_specimen
def test_weights_all_used_none_missing_and_reversed_bit_for_bit(
    family: str, name: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    hf = zoo.hugging_face(family, name)
    hf.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    memory, disk = hf.state_dict(), load_file(tmp_path / "model.safetensors")
    cfg, state = read(hf.config.to_dict(), memory)
    from_disk, state_from_disk = read(saved, disk)
    assert from_disk.stack == cfg.stack
    assert from_disk.tied == cfg.tied
    assert cfg.tied == (cfg.unembed is not None and getattr(hf.config, "tie_word_embeddings", True))
    assert {name: tuple(x.shape) for name, x in state.items()} == shapes_of(cfg)
    assert_same(state, state_from_disk)
    assert_same(write(cfg, state, memory), memory)
    assert_same(write(cfg, state), disk)
    model = Transformer.from_state(cfg, state)
    assert_same(write(cfg, model.state_dict()), disk)


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert x.dtype == b[name].dtype, name
        assert torch.equal(x, b[name]), name


@each_specimen
def test_parameters_have_the_shapes_that_the_config_says(family: str, name: str) -> None:
    model = ours(family, name)
    assert {n: tuple(p.shape) for n, p in model.state_dict().items()} == shapes_of(model.cfg)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for other, same in aliases_of(model.cfg).items():
        assert parameters[other] is parameters[same]
    assert len(set(parameters.values())) == len(parameters) - len(aliases_of(model.cfg))


@each_specimen
def test_base_model_checkpoints_are_read(family: str, name: str) -> None:
    """Without the head's prefix, as `AutoModel` saves them; only a tied model can do without the head.

    Encoders without their head give the last residual stream.
    """
    hf = zoo.hugging_face(family, name)
    base = dict(hf.base_model.state_dict())
    config = {k: v for k, v in hf.config.to_dict().items() if k != "tie_word_embeddings"}
    if zoo.ZOO[family][name].auto != "AutoModelForCausalLM":
        cfg, state = read(config, base)
        if cfg.source is not None and not cfg.embed.empty:  # the decoder's embedding unembeds
            assert cfg.tied and cfg.unembed is not None and not cfg.unembed.bias
            assert_same(write(cfg, state, base), base)
            return
        assert cfg.unembed is None and cfg.classifier is None and not cfg.tied
        pools = cfg.pooler is not None and cfg.pooler.layer
        heads = ("unembed.", "classifier.", "boxes.", *(() if pools else ("pooler.",)))
        whole = ours(family, name).state_dict()
        assert_same(state, {n: x for n, x in whole.items() if not n.startswith(heads)})
        assert_same(write(cfg, state, base), base)
        return
    cfg, state = read(config, base | {k: v for k, v in hf.state_dict().items() if k == "lm_head.bias"})
    assert cfg.tied
    assert_same(
        state | {"unembed.linear.weight": ours(family, name).unembed.linear.weight},
        dict(ours(family, name).state_dict()),
    )
    assert_same(write(cfg, state, base), base)
    with pytest.raises(ValueError, match="without a language-model head"):
        read(
            {**config, "tie_word_embeddings": False},
            base | {k: v for k, v in hf.state_dict().items() if k == "lm_head.bias"},
        )


ACTIVATION = (
    "hidden_activation",
    "activation_function",
    "hidden_act",
    "activation",
    "feed_forward_proj",
    "dense_act_fn",
)


@each_specimen
def test_unknown_config_fields_are_refused_by_name(family: str, name: str) -> None:
    hf = zoo.config(zoo.ZOO[family][name]).to_dict()
    find(hf).config({**hf, "temperature": 0.7, "transformers_version": "4.0.0", "novelty": None})
    for field, value in {
        "novelty": 3,
        "quantization_config": {"bits": 4},
        "add_cross_attention": True,
    }.items():
        with pytest.raises(ValueError, match=field):
            find(hf).config({**hf, field: value})
    if "text_config" in hf:  # a model of two
        hf = hf["text_config"]
    activation = next((k for k in ACTIVATION if k in hf), None)
    if activation is None:  # RWKV's is fixed
        return
    with pytest.raises(ValueError, match="'gelo' is not a known activation function; did you mean 'gelu'"):
        find(hf).config({**hf, activation: "gelo"})


@pytest.mark.parametrize(
    ("family", "name", "fields", "message"),
    [
        ("gpt2", "tied", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", "tied", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("gpt2", "tied", {"n_embd": None}, "no field 'n_embd'"),
        ("gpt2", "tied", {"hidden_size": 64}, "n_embd=32 and hidden_size=64"),
        ("gpt_neo", "windowed", {"num_layers": 5}, "attention_types has 4 layers, num_layers is 5"),
        ("gpt_neo", "windowed", {"attention_types": [[["global", "lokal"], 2]]}, "did you mean 'local'"),
        ("gptj", "partial", {"rotary_dim": None}, "no field 'rotary_dim'"),
        ("gptj", "partial", {"rotary": False}, "rotary=False"),
        ("opt", "before", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine"),
        ("llama", "untied", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama", "untied", {"rope_scaling": {"type": "longrope", "factor": 2.0}}, "'longrope'"),
        ("llama", "untied", {"rope_scaling": {"type": "linear"}}, "no 'factor'"),
        (
            "llama",
            "untied",
            {"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": [1]}},
            "mrope_section",
        ),
        ("llama", "untied", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("llama", "untied", {"rope_interleaved": True}, "rope_interleaved"),
        ("qwen2", "windowed", {"layer_types": ["chunked_attention"] * 3}, "'chunked_attention'"),
        ("qwen2", "full", {"layer_types": ["sliding_attention"] * 3}, "no sliding_window"),
        ("qwen2", "full", {"use_mrope": True}, "use_mrope"),
        ("gemma", "tied", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma", "tied", {"hidden_activation": "silu"}, "hidden_activation='silu'"),
        ("gemma3", "local_and_global", {"rope_parameters": {"chunked_attention": {}}}, "'chunked_attention'"),
        ("phi3", "full", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "longrope"),
        ("phi3", "full", {"rope_scaling": {"type": "su"}}, "longrope"),
    ],
)
def test_unsupported_values_are_refused_by_name(
    family: str, name: str, fields: dict[str, Any], message: str
) -> None:
    hf = {**zoo.config(zoo.ZOO[family][name]).to_dict(), **fields}
    with pytest.raises(ValueError, match=message):
        find(hf).config(hf)


@pytest.mark.parametrize(
    ("family", "name", "change", "message"),
    [
        (
            "llama",
            "tied",
            {"hidden_size": "32"},
            "llama config field hidden_size='32' should be a whole number",
        ),
        ("llama", "tied", {"num_hidden_layers": -1}, "num_hidden_layers=-1 should be a whole number"),
        ("llama", "tied", {"num_attention_heads": 0}, "num_attention_heads=0 should be one at least"),
        ("llama", "tied", {"intermediate_size": 40.5}, r"intermediate_size=40\.5 should be a whole number"),
        ("llama", "tied", {"rms_norm_eps": "little"}, "rms_norm_eps='little' should be a number"),
        ("vit", "base", {"patch_size": 0}, "vit config field patch_size=0 should be one at least"),
        ("big_bird", "base", {"block_size": 0}, "block_size=0 should be one at least"),
        ("jamba", "dense", {"attn_layer_period": 0}, "attn_layer_period=0 should be one at least"),
        (
            "mixtral",
            "top2",
            {"num_experts_per_tok": 9},
            "mixtral config: 9 of 4 experts per token cannot be chosen",
        ),
        ("longformer", "base", {"attention_window": [4]}, r"attention_window=\[4\] should be an even number"),
        ("longformer", "base", {"attention_window": 5}, "attention_window=.* should be an even number"),
        ("deberta_v2", "masked", {"pos_att_type": ["p2x"]}, "pos_att_type: 'p2x' is not a known term"),
    ],
)
def test_sizes_that_cannot_be_are_named(family: str, name: str, change: dict[str, Any], message: str) -> None:
    hf = zoo.config(zoo.ZOO[family][name]).to_dict()
    with pytest.raises(ValueError, match=message):
        find(hf).config(hf | change)


def test_a_head_that_is_not_read_is_named_with_its_class() -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    sizes = {**zoo.GROUPED, "num_hidden_layers": 1}
    hf = LlamaForSequenceClassification(LlamaConfig(**sizes))
    config = hf.config.to_dict() | {"architectures": ["LlamaForSequenceClassification"]}
    message = "LlamaForSequenceClassification has a head that the llama family does not read: 'score.weight'"
    with pytest.raises(ValueError, match=message):
        read(config, hf.state_dict())
    state = dict(hf.state_dict()) | {"model.layers.0.mlp.side.weight": torch.ones(2)}
    with pytest.raises(
        ValueError, match=r"'model.layers.0.mlp.side.weight' is not a tensor of the llama family"
    ):
        read(config, {name: x for name, x in state.items() if name != "score.weight"})


@pytest.mark.parametrize("kind", ["Bert", "Albert", "DistilBert", "DebertaV2"])
def test_multiple_choice_is_one_logit_per_text(kind: str) -> None:
    """Hugging Face folds the choices into the batch, and back."""
    import transformers

    sizes = {
        "Bert": zoo.ENCODER,
        "Albert": zoo.ALBERT,
        "DistilBert": zoo.DISTILBERT,
        "DebertaV2": zoo.DEBERTA,
    }[kind]
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}ForMultipleChoice")(
        getattr(transformers, f"{kind}Config")(**sizes)
    ).eval()
    for parameter in made.parameters():
        parameter.data += torch.randn_like(parameter) * 0.2
    config = made.config.to_dict() | {"architectures": [type(made).__name__]}
    model = Transformer.from_state(*read(config, made.state_dict()))
    ids = torch.randint(3, zoo.D_VOCAB, (2, 3, 7))  # texts, choices, tokens
    with torch.no_grad():
        expected = made(ids).logits
    assert torch.allclose(model(ids.flatten(0, 1)).view(2, 3), expected, atol=1e-5)


def test_multiple_choice_elsewhere_is_refused() -> None:
    from transformers import RobertaConfig, RobertaForMultipleChoice

    made = RobertaForMultipleChoice(RobertaConfig(**zoo.ENCODER))
    config = made.config.to_dict() | {"architectures": ["RobertaForMultipleChoice"]}
    with pytest.raises(ValueError, match="roberta: models of multiple choice are not supported"):
        read(config, made.state_dict())


def test_weights_are_floating_point_numbers() -> None:
    hf = zoo.hugging_face("llama", "tied")
    state = dict(hf.state_dict())
    state["model.norm.weight"] = state["model.norm.weight"].to(torch.int8)
    with pytest.raises(ValueError, match=r"'model.norm.weight' holds torch.int8; weights are floating-point"):
        read(hf.config.to_dict(), state)
