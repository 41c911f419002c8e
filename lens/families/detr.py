"""DETR (arXiv 2005.12872): a ResNet's feature map, encoder, decoder of object queries, classes and boxes.

Positions are added to what queries and keys read in every layer, never to the stream.
"""

from __future__ import annotations

from typing import Any

from lens.config import (
    ClassifierConfig,
    EmbedConfig,
    FeatureConfig,
    ModelConfig,
    ResNetConfig,
    SourceConfig,
    StackConfig,
)
from lens.family import Family
from lens.fields import Fields
from lens.nearest import unknown
from lens.weights import Rule, Table, alias, same, skipped

SIDES = {"encoder": "encoder.", "decoder": ""}

RESNETS: dict[str, tuple[bool, tuple[int, ...]]] = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnet152": (True, (3, 8, 36, 3)),
}
"""Names of backbones: have they bottlenecks, and how many blocks each stage has."""

LOSSES = (
    "auxiliary_loss", "bbox_cost", "bbox_loss_coefficient", "class_cost", "dice_loss_coefficient",
    "eos_coefficient", "giou_cost", "giou_loss_coefficient", "init_xavier_std", "mask_loss_coefficient",
)  # fmt: skip


def build(f: Fields) -> ModelConfig:
    f.only("is_encoder_decoder", True)
    f.only("dilation", False)
    f.only("auxiliary_loss", False)  # normalises after every layer
    f.ignore(*LOSSES, "encoder_layerdrop", "decoder_layerdrop", "num_hidden_layers", "num_attention_heads")
    f.ignore("scale_embedding", "max_position_embeddings")  # of older files: nothing reads them
    d_model, n_queries = f.get("d_model"), f.get("num_queries", default=100)
    f.only("hidden_size", d_model)
    kind = f.get("position_embedding_type", default="sine")
    if kind not in ("sine", "learned"):
        raise ValueError(f"detr config: {unknown('position_embedding_type', str(kind), ('sine', 'learned'))}")
    features = FeatureConfig(backbone=_backbone(f), learned=kind == "learned")
    detects = f.has("class_labels_classifier.weight", unknown=True)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_queries,
        embed=EmbedConfig(
            d_vocab=0, d_embed=d_model, n_positions=n_queries, empty=True, positions_in_attention=True
        ),
        stack=_stack(f, "decoder"),
        unembed=None,
        classifier=_classifier(f.n_classes() + 1) if detects else None,
        boxes=detects,
        source=SourceConfig(
            embed=EmbedConfig(d_vocab=0, d_embed=d_model, features=features, positions_in_attention=True),
            stack=_stack(f, "encoder"),
            shared=False,
        ),
    )


def _classifier(n_classes: int) -> ClassifierConfig:
    return ClassifierConfig(n_classes=n_classes, of="token", task="object")


def _stack(f: Fields, side: str) -> StackConfig:
    d_model, n_heads = f.get("d_model"), f.get(f"{side}_attention_heads", default=8)
    return StackConfig(
        n_layers=f.get(f"{side}_layers", default=6),
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_model // n_heads,
        n_kv_heads=n_heads,
        d_mlp=f.get(f"{side}_ffn_dim", default=2048),
        causal=False,
        cross=side == "decoder",
        norm_placement=frozenset({"add"}),
        final_norm=side == "decoder",
        attn_bias=frozenset({"q", "k", "v", "o"}),
        act_fn=f.activation("activation_function", default="relu"),
    )


def _backbone(f: Fields) -> ResNetConfig:
    """The network in front: by its configuration, or by its name where that is timm's."""
    own = f.get("backbone_config", default=None) or {}
    named = f.get("backbone", default=None)
    f.ignore("use_pretrained_backbone", "use_timm_backbone")  # from where its first weights came
    options: dict[str, Any] = f.get("backbone_kwargs", default=None) or {}
    n_channels = f.get("num_channels", default=3)
    if own.get("model_type", "timm_backbone") == "timm_backbone":
        name = own.get("backbone") or named or "resnet50"
        strange = {**own, **options}.get("output_stride")
        if name not in RESNETS or strange not in (None, 32):
            what = (
                unknown("backbone", str(name), RESNETS) if name not in RESNETS else f"output_stride={strange}"
            )
            raise ValueError(f"detr config: the features of this backbone cannot be made here: {what}")
        bottleneck, depths = RESNETS[name]
        widths = tuple((256 if bottleneck else 64) << stage for stage in range(4))
        return ResNetConfig(
            stem=64, widths=widths, depths=depths, bottleneck=bottleneck, n_channels=n_channels
        )
    return _resnet(Fields("detr backbone", own))


def _resnet(f: Fields) -> ResNetConfig:
    f.only("model_type", "resnet")
    widths = tuple(f.get("hidden_sizes", default=[256, 512, 1024, 2048]))
    depths = tuple(f.get("depths", default=[3, 4, 6, 3]))
    f.only("layer_type", "basic", "bottleneck")
    for name in ("out_features", "_out_features"):
        last = [f"stage{len(depths)}"]
        if (f.get(name, default=None) or last)[-1:] != last:
            raise ValueError(f"detr backbone config: {name} must end with {last[0]!r}, the last feature map")
    f.ignore("out_indices", "_out_indices", "stage_names")  # the same by number
    cfg = ResNetConfig(
        stem=f.get("embedding_size", default=64),
        widths=widths,
        depths=depths,
        n_channels=f.get("num_channels", default=3),
        bottleneck=f.get("layer_type", default="bottleneck") == "bottleneck",
        stride_first=f.get("downsample_in_first_stage", default=False),
        stride_early=f.get("downsample_in_bottleneck", default=False),
        act_fn=f.activation("hidden_act", default="relu"),
    )
    f.close()
    return cfg


def weights(cfg: ModelConfig) -> Table:
    assert cfg.source is not None and cfg.source.embed.features is not None
    ours = "encoder.embed.features"
    rules = (
        same("model.query_position_embeddings", "embed.positions"),
        same("model.input_projection", f"{ours}.linear"),
        same("model.position_embedding.row_embeddings", f"{ours}.rows"),
        same("model.position_embedding.column_embeddings", f"{ours}.columns"),
        same("model.decoder.layernorm", "stack.ln_final"),
        same("class_labels_classifier", "classifier.linear"),
        *(
            same(f"bbox_predictor.layers.{i}", f"boxes.{name}")
            for i, name in enumerate(("first", "second", "last"))
        ),
        *(rule for side in SIDES for rule in _layers(side)),
        *_convolutions(cfg.source.embed.features.backbone, f"{ours}.backbone"),
    )
    return Table("detr", rules, prefix="model.")


def _layers(side: str) -> list[Rule]:
    """A stack's names in checkpoints, then in memory."""
    theirs, ours = f"model.{side}.layers.{{l}}", f"{SIDES[side]}stack.blocks.{{l}}"
    attention = {"self_attn": "attn"} | ({"encoder_attn": "cross_attn"} if side == "decoder" else {})
    norms = {"self_attn_layer_norm": "ln1", "encoder_attn_layer_norm": "ln3", "final_layer_norm": "ln2"}
    found = [
        same(f"{theirs}.{a}.{name}_proj", f"{ours}.{b}.{name}")
        for a, b in attention.items()
        for name in "qkv"
    ]
    for a, b in attention.items():
        found += [
            same(f"{theirs}.{a}.out_proj", f"{ours}.{b}.o"),
            alias(same(f"{theirs}.{a}.o_proj", f"{ours}.{b}.o")),
        ]
    for a, b in {"fc1": "up", "fc2": "down"}.items():
        found += [
            same(f"{theirs}.{a}", f"{ours}.mlp.{b}"),
            alias(same(f"{theirs}.mlp.{a}", f"{ours}.mlp.{b}")),
        ]
    return found + [same(f"{theirs}.{a}", f"{ours}.{b}") for a, b in norms.items()]


SAVED, MEMORY = "model.backbone.conv_encoder.model", "model.backbone.model"


def _convolutions(cfg: ResNetConfig, ours: str) -> list[Rule]:
    """The backbone's names: in checkpoints, in memory, and those of timm."""
    names = {("embedder.embedder", "conv1", "bn1"): f"{ours}.stem"}
    layer = 0
    for stage, depth in enumerate(cfg.depths):
        for block in range(depth):
            hf, timm = f"encoder.stages.{stage}.layers.{block}", f"layer{stage + 1}.{block}"
            for i in range(3 if cfg.bottleneck else 2):
                theirs = f"{hf}.layer.{i}", f"{timm}.conv{i + 1}", f"{timm}.bn{i + 1}"
                names[theirs] = f"{ours}.blocks.{layer}.convolutions.{i}"
            if block == 0:
                theirs = f"{hf}.shortcut", f"{timm}.downsample.0", f"{timm}.downsample.1"
                names[theirs] = f"{ours}.blocks.{layer}.shortcut"
            layer += 1
    found = list[Rule]()
    for (hf, conv, norm), target in names.items():
        for path in (SAVED, MEMORY):
            of_hf = _convolution(f"{path}.{hf}.convolution", f"{path}.{hf}.normalization", target)
            found += of_hf if path == SAVED else map(alias, of_hf)
            found += map(alias, _convolution(f"{path}.{conv}", f"{path}.{norm}", target))
            found += skipped(
                f"{path}.{norm}.num_batches_tracked", f"{path}.{hf}.normalization.num_batches_tracked"
            )
    return found


def _convolution(conv: str, norm: str, ours: str) -> list[Rule]:
    statistics = {"running_mean": "mean", "running_var": "variance"}
    return [
        same(f"{conv}.weight", f"{ours}.conv.weight"),
        same(norm, f"{ours}.norm"),
        *(same(f"{norm}.{a}", f"{ours}.norm.{b}.weight") for a, b in statistics.items()),
    ]


FAMILY = Family("detr", ("detr",), build, weights)
