"""Tiny random Hugging Face models: one or more per family, together covering the branches of its file.

Every parameter gets noise: default-initialised norms are all ones and default attention is nearly flat, which
hides swapped norms and wrong scales.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

D_VOCAB = 61
N_CTX = 48

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": D_VOCAB,
    "max_position_embeddings": N_CTX,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": D_VOCAB, "n_positions": N_CTX}
GPT_NEO = {
    "hidden_size": 32,
    "num_layers": 4,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 2]],
    "window_size": 5,
    "vocab_size": D_VOCAB,
    "max_position_embeddings": N_CTX,
}
OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 40,
    "vocab_size": D_VOCAB,
    "max_position_embeddings": N_CTX,
    "word_embed_proj_dim": 32,
}
ENCODER = {k: v for k, v in SIZES.items() if not k.endswith("token_id")}
DISTILBERT = {
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 40,
    "vocab_size": D_VOCAB,
    "max_position_embeddings": N_CTX,
}
ALBERT = {**ENCODER, "embedding_size": 20}
DEBERTA = {
    **ENCODER,
    "relative_attention": True,
    "position_buckets": 4,
    "max_relative_positions": 10,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
BART = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 36,
    "vocab_size": D_VOCAB,
    "max_position_embeddings": N_CTX,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
T5 = {
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": D_VOCAB,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
    "decoder_start_token_id": 0,
}
VIT = {
    **{k: v for k, v in ENCODER.items() if k not in ("vocab_size", "max_position_embeddings")},
    "image_size": 12,
    "patch_size": 4,
}
SWIN = {"image_size": 24, "patch_size": 2, "window_size": 3, "embed_dim": 16, "mlp_ratio": 1.5}
SWIN |= {"depths": [2, 2], "num_heads": [2, 4]}
RESNET = {
    "model_type": "resnet",
    "embedding_size": 6,
    "hidden_sizes": [8, 8, 12, 16],
    "out_features": ["stage4"],
}
BASIC = {"layer_type": "basic", "downsample_in_first_stage": True, "hidden_act": "gelu"}
DETR = {
    **{k: v for k, v in BART.items() if not k.endswith("token_id") and not k.startswith(("vocab", "max"))},
    "num_queries": 6,
    "backbone_config": {**RESNET, "depths": [1, 2, 1, 1]},
}
WHISPER = {
    **{k: v for k, v in BART.items() if k != "max_position_embeddings"},
    "num_mel_bins": 7,
    "max_source_positions": 11,
    "max_target_positions": N_CTX,
    "decoder_start_token_id": 1,
}
CLIP_TEXT = {**ENCODER, "projection_dim": 20, "bos_token_id": 0, "eos_token_id": 1}
CLIP_VISION = {**VIT, "hidden_size": 24, "num_attention_heads": 3, "projection_dim": 20}
OLD_END = {"eos_token_id": 2}
MAMBA = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "state_size": 5,
    "conv_kernel": 3,
    "vocab_size": D_VOCAB,
    "pad_token_id": 0,
}
RWKV = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 40,
    "vocab_size": D_VOCAB,
    "context_length": N_CTX,
}
MAMBA2 = {**MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 5}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
JAMBA = {
    **GROUPED,
    "num_hidden_layers": 4,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "num_experts": 3,
    "mamba_d_state": 5,
    "mamba_d_conv": 3,
    "use_mamba_kernels": False,
}
PERCEIVER = {
    "num_latents": 7,
    "d_latents": 24,
    "d_model": 16,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 2,
    "vocab_size": D_VOCAB,
    "max_position_embeddings": 13,
}
REFORMER = {
    "attn_layers": ["local", "lsh", "lsh"],
    "hidden_size": 16,
    "attention_head_size": 6,
    "num_attention_heads": 4,
    "feed_forward_size": 20,
    "vocab_size": D_VOCAB,
    "max_position_embeddings": N_CTX,
    "axial_pos_shape": [6, 8],
    "axial_pos_embds_dim": [6, 10],
    "local_attn_chunk_length": 2,
    "lsh_attn_chunk_length": 4,
    "num_buckets": 4,
    "hash_seed": 3,
    "lsh_num_chunks_before": 0,
}
SEQ2SEQ = "ForSeq2SeqLM"
LABELS = {"num_labels": 4}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 12}
WINDOWED = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
LOCAL = {"head_dim": 12, "sliding_window": 5, "query_pre_attn_scalar": 20}
GLOBAL_LAST = {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}


@dataclass(frozen=True)
class Specimen:
    """One tiny model: a Hugging Face model type, the arguments of its config, and which head it has."""

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    noise: float = 0.12
    auto: str = "AutoModelForCausalLM"


def _of(
    model_type: str, common: dict[str, Any], noise: float = 0.12, **cases: dict[str, Any]
) -> dict[str, Specimen]:
    return {name: Specimen(model_type, {**common, **own}, noise) for name, own in cases.items()}


def _headed(
    model_type: str, common: dict[str, Any], **cases: tuple[str, dict[str, Any]]
) -> dict[str, Specimen]:
    """Specimens by name: the end of the class's name, and what the config adds."""
    return {
        name: Specimen(model_type, {**common, **own}, auto=f"AutoModel{head}")
        for name, (head, own) in cases.items()
    }


ZOO: dict[str, dict[str, Specimen]] = {
    "gpt2": _of(
        "gpt2",
        GPT2,
        tied={},
        untied={"tie_word_embeddings": False, "n_inner": 40, "activation_function": "relu"},
        unscaled={"scale_attn_weights": False, "reorder_and_upcast_attn": True},
    ),
    "gpt_neo": _of("gpt_neo", GPT_NEO, 0.06, windowed={}, untied={"tie_word_embeddings": False}),
    "gptj": _of(
        "gptj", {**GPT2, "rotary_dim": 4}, partial={}, tied={"tie_word_embeddings": True, "n_inner": 40}
    ),
    "gpt_neox": _of(
        "gpt_neox",
        SIZES,
        parallel={"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        sequential={"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True},
        stretched={"rope_parameters": {"rope_type": "linear", "factor": 3.0, "partial_rotary_factor": 0.5}},
    ),
    "opt": _of(
        "opt",
        OPT,
        before={},
        factorised={"word_embed_proj_dim": 24, "do_layer_norm_before": False},
        bare={"enable_bias": False, "_remove_final_layer_norm": True, "tie_word_embeddings": False},
    ),
    "llama": _of(
        "llama",
        GROUPED,
        untied={},
        tied={"tie_word_embeddings": True, "head_dim": 12},
        biased={"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
        llama3={"rope_parameters": LLAMA3},
        linear={"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}},
        yarn={"rope_parameters": YARN},
        yarn_smooth={
            "rope_parameters": {**YARN, "truncate": False, "beta_fast": 4.0, "attention_factor": 1.2}
        },
    ),
    "mistral": _of(
        "mistral", GROUPED, windowed={"sliding_window": 5, "head_dim": 12}, full={"sliding_window": None}
    ),
    "qwen2": _of("qwen2", GROUPED, windowed=WINDOWED, full={"tie_word_embeddings": True}),
    "qwen3": _of(
        "qwen3",
        {**GROUPED, "head_dim": 12},
        full={"tie_word_embeddings": True},
        windowed={**WINDOWED, "attention_bias": True},
    ),
    "gemma": _of("gemma", {**GROUPED, "head_dim": 12}, tied={}, untied={"tie_word_embeddings": False}),
    "gemma2": _of(
        "gemma2",
        {**GROUPED, **LOCAL},
        capped={"attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0},
        uncapped={"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True},
    ),
    "gemma3": _of(
        "gemma3_text",
        {**GROUPED, **LOCAL, **GLOBAL_LAST},
        local_and_global={},
        stretched={
            "final_logit_softcapping": 4.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            },
        },
    ),
    "olmo2": _of("olmo2", GROUPED, grouped={}, biased={"attention_bias": True, "num_key_value_heads": 4}),
    "phi": _of(
        "phi",
        SIZES,
        plain={"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        qk_norm={"qk_layernorm": True, "num_key_value_heads": 2},
    ),
    "phi3": _of("phi3", GROUPED, full={}, windowed={"sliding_window": 5, "tie_word_embeddings": True}),
    "bert": _headed(
        "bert",
        ENCODER,
        masked=("ForMaskedLM", {}),
        pretraining=("ForPreTraining", {"hidden_act": "relu"}),
        base=("", {"type_vocab_size": 3}),
        texts=("ForSequenceClassification", LABELS),
        tokens=("ForTokenClassification", LABELS),
        answers=("ForQuestionAnswering", {}),
        pairs=("ForNextSentencePrediction", {}),
    ),
    "roberta": {
        **_headed(
            "roberta",
            ENCODER,
            masked=("ForMaskedLM", {"type_vocab_size": 1}),
            base=("", {}),
            texts=("ForSequenceClassification", LABELS),
            tokens=("ForTokenClassification", LABELS),
        ),
        **_headed("xlm-roberta", ENCODER, multilingual=("ForMaskedLM", {"pad_token_id": 0})),
    },
    "distilbert": _headed(
        "distilbert",
        DISTILBERT,
        masked=("ForMaskedLM", {}),
        untied=("ForMaskedLM", {"tie_word_embeddings": False, "activation": "relu"}),
        base=("", {}),
        texts=("ForSequenceClassification", LABELS),
        answers=("ForQuestionAnswering", {}),
    ),
    "albert": _headed(
        "albert",
        ALBERT,
        masked=("ForMaskedLM", {}),
        pretraining=("ForPreTraining", {"num_hidden_layers": 4, "num_hidden_groups": 2}),
        base=("", {"num_hidden_groups": 3}),
        texts=("ForSequenceClassification", LABELS),
        wide=("ForMaskedLM", {"embedding_size": 32}),
    ),
    "deberta_v2": _headed(
        "deberta-v2",
        DEBERTA,
        masked=("ForMaskedLM", {}),
        newer=("ForMaskedLM", {"legacy": False, "max_relative_positions": -1}),
        own_projections=(
            "ForMaskedLM",
            {"share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1, "type_vocab_size": 2},
        ),
        one_term=("ForMaskedLM", {"pos_att_type": "c2p", "position_biased_input": True}),
        own_query=("", {"share_att_key": False, "pos_att_type": "p2c"}),
        plain=(
            "ForMaskedLM",
            {"relative_attention": False, "position_biased_input": True, "norm_rel_ebd": "none"},
        ),
        texts=("ForSequenceClassification", {**LABELS, "pooler_hidden_act": "relu"}),
    ),
    "longformer": _headed(
        "longformer",
        {**ENCODER, "attention_window": 4},
        masked=("ForMaskedLM", {}),
        widening=("ForMaskedLM", {"attention_window": [4, 8, 4], "type_vocab_size": 1}),
        base=("", {}),
        texts=("ForSequenceClassification", LABELS),
    ),
    "big_bird": _headed(
        "big_bird",
        {**ENCODER, "block_size": 1, "num_random_blocks": 2},
        masked=("ForMaskedLM", {}),
        pretraining=("ForPreTraining", {"use_bias": False, "rescale_embeddings": True, "hidden_act": "relu"}),
        base=("", {"num_random_blocks": 1}),
        tokens=("ForTokenClassification", LABELS),
        full=("ForMaskedLM", {"attention_type": "original_full"}),
    ),
    "bart": _headed(
        "bart",
        BART,
        plain=(SEQ2SEQ, {}),
        scaled=(SEQ2SEQ, {"scale_embedding": True, "activation_function": "relu"}),
    ),
    "marian": _headed(
        "marian",
        BART,
        plain=(SEQ2SEQ, {"scale_embedding": True, "activation_function": "swish"}),
        two_vocabularies=(
            SEQ2SEQ,
            {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": D_VOCAB + 4},
        ),
    ),
    "t5": _headed(
        "t5",
        T5,
        plain=(SEQ2SEQ, {}),
        gated=(SEQ2SEQ, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ),
    "mt5": _headed("mt5", T5, gated=(SEQ2SEQ, {}), silu=(SEQ2SEQ, {"feed_forward_proj": "gated-silu"})),
    "switch_transformers": _headed(
        "switch_transformers",
        {**T5, "num_layers": 4, "num_experts": 3, "num_sparse_encoder_layers": 2},
        every_other=(SEQ2SEQ, {"num_sparse_decoder_layers": 1, "expert_capacity": 20}),
        full=(SEQ2SEQ, {"num_sparse_decoder_layers": 2, "expert_capacity": 2}),
    ),
    "vit": _headed(
        "vit",
        VIT,
        classifier=("ForImageClassification", LABELS),
        base=("", {"qkv_bias": False, "num_channels": 1, "pooler_act": "relu"}),
    ),
    "swin": _headed(
        "swin",
        SWIN,
        padded=("ForImageClassification", {**LABELS, "image_size": [22, 28]}),
        even=(
            "ForImageClassification",
            {"use_absolute_embeddings": True, "depths": [2, 3], "window_size": 4},
        ),
        base=("", {"qkv_bias": False, "num_channels": 1, "depths": [3, 1, 2], "num_heads": [4, 2, 8]}),
    ),
    "detr": {
        name: replace(specimen, noise=0.3)  # or else all queries find the same
        for name, specimen in _headed(
            "detr",
            DETR,
            objects=("ForObjectDetection", LABELS),
            learned=(
                "ForObjectDetection",
                {
                    "position_embedding_type": "learned",
                    "activation_function": "gelu",
                    "backbone_config": {**RESNET, **BASIC, "depths": [1, 1, 1, 1]},
                },
            ),
            base=(
                "",
                {"backbone_config": {**RESNET, "depths": [1, 1, 2, 1], "downsample_in_bottleneck": True}},
            ),
        ).items()
    },
    "whisper": _headed(
        "whisper",
        WHISPER,
        plain=("ForSpeechSeq2Seq", {}),
        relu=("ForSpeechSeq2Seq", {"activation_function": "relu", "num_mel_bins": 4}),
    ),
    "clip": {
        "both": Specimen(
            "clip",
            {"text_config": CLIP_TEXT, "vision_config": CLIP_VISION, "projection_dim": 20},
            auto="AutoModel",
        ),
        "texts": Specimen("clip_text_model", CLIP_TEXT, auto="CLIPTextModelWithProjection"),
        "texts_alone": Specimen("clip_text_model", {**CLIP_TEXT, **OLD_END}, auto="CLIPTextModel"),
        "images": Specimen("clip_vision_model", CLIP_VISION, auto="CLIPVisionModelWithProjection"),
        "images_alone": Specimen(
            "clip_vision_model",
            {**CLIP_VISION, "hidden_act": "gelu", "num_channels": 1},
            auto="CLIPVisionModel",
        ),
    },
    "mamba": _of(
        "mamba",
        MAMBA,
        tied={},
        biased={
            "use_bias": True,
            "use_conv_bias": False,
            "hidden_act": "gelu",
            "expand": 3,
            "time_step_rank": 3,
            "tie_word_embeddings": False,
        },
    ),
    "perceiver": _headed(
        "perceiver",
        PERCEIVER,
        twice=("ForMaskedLM", {"num_blocks": 2, "qk_channels": 16, "v_channels": 24}),
        replacing=("ForMaskedLM", {"use_query_residual": False, "cross_attention_shape_for_attention": "q"}),
        wide=(
            "ForMaskedLM",
            {"self_attention_widening_factor": 2, "cross_attention_widening_factor": 2, "hidden_act": "relu"},
        ),
    ),
    "reformer": {
        "causal": Specimen("reformer", {**REFORMER, "is_decoder": True}, auto="ReformerModelWithLMHead"),
        "factors": Specimen(
            "reformer",
            {
                **REFORMER,
                "num_buckets": [2, 4],
                "axial_pos_embds": False,
                "is_decoder": True,
            },
            auto="ReformerModelWithLMHead",
        ),
        "masked": Specimen(
            "reformer",
            {
                **REFORMER,
                "local_num_chunks_after": 1,
                "lsh_num_chunks_before": 1,
                "lsh_num_chunks_after": 1,
                "hash_seed": 0,
            },
            auto="AutoModelForMaskedLM",
        ),
        "base": Specimen(
            "reformer", {**REFORMER, "attn_layers": ["lsh", "lsh"], "hidden_act": "gelu"}, auto="AutoModel"
        ),
    },
    "rwkv": _of(
        "rwkv",
        RWKV,
        rescaled={"rescale_every": 2},
        tied={"rescale_every": 0, "tie_word_embeddings": True, "attention_hidden_size": 24},
    ),
    "mamba2": _of(
        "mamba2",
        MAMBA2,
        untied={},
        tied={
            "use_bias": True,
            "use_conv_bias": False,
            "hidden_act": "gelu",
            "n_groups": 1,
            "time_step_limit": (0.3, 1.0),
            "layer_norm_epsilon": 1e-3,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2_moe": _of(
        "qwen2_moe",
        {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 28},
        sparse={"decoder_sparse_step": 2, "norm_topk_prob": True},
        windowed={
            "mlp_only_layers": [1],
            "qkv_bias": False,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 2,
        },
        everywhere={"tie_word_embeddings": True},
    ),
    "qwen3_moe": _of(
        "qwen3_moe",
        {**GROUPED, **EXPERTS, "head_dim": 12},
        everywhere={"norm_topk_prob": True, "tie_word_embeddings": True},
        windowed={
            "mlp_only_layers": [0],
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    "olmoe": _of(
        "olmoe",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
        grouped={},
        biased={"attention_bias": True, "norm_topk_prob": True, "num_key_value_heads": 4},
    ),
    "jamba": _of(
        "jamba",
        JAMBA,
        experts={},
        dense={
            "num_experts": 1,
            "tie_word_embeddings": True,
            "mamba_proj_bias": True,
            "mamba_conv_bias": False,
            "mamba_dt_rank": 3,
            "hidden_act": "gelu",
        },
    ),
    "mixtral": _of(
        "mixtral",
        {**GROUPED, "num_local_experts": 4},
        top2={"num_experts_per_tok": 2},
        windowed={"num_experts_per_tok": 1, "sliding_window": 5, "head_dim": 12},
    ),
}


def config(specimen: Specimen) -> Any:
    """The Hugging Face config object."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[specimen.model_type](**specimen.config)


def _weights_restored(model: Any, *_: Any) -> None:
    """RWKV rescales its weights in place in its first run: put back what its checkpoint holds."""
    base = model.base_model
    base.training = True
    base._rescale_layers()
    base.training = False


@cache
def hugging_face(family: str, name: str, dtype: torch.dtype = torch.float32) -> Any:
    """One specimen as a Hugging Face model: eager, frozen, noise on every parameter. Shared between tests."""
    return fresh(ZOO[family][name], dtype)


def fresh(specimen: Specimen, dtype: torch.dtype = torch.float32) -> Any:
    """The same of any specimen, and not shared."""
    import transformers

    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        kind = getattr(transformers, specimen.auto)
        make = kind.from_config if specimen.auto.startswith("Auto") else kind._from_config
        model = make(config(specimen), attn_implementation="eager", experts_implementation="eager").eval()
    if specimen.model_type == "rwkv":
        model.register_forward_hook(_weights_restored)
    trained = [p for p in model.parameters() if p.requires_grad]  # not Marian's positions
    model.requires_grad_(False)
    for parameter in trained:
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=specimen.noise)
    for kind, buffer in model.named_buffers():  # weights that are not parameters
        noise = torch.randn(buffer.shape, generator=generator) * specimen.noise
        if kind == "final_logits_bias" or kind.startswith(("backbone.", "model.backbone.")):
            buffer.add_(noise.abs() if kind.endswith("running_var") else noise)
    return model.to(dtype)
