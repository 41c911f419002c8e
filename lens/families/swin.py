"""Swin (arXiv 2103.14030): windows of patches, shifted in every other layer, and stages of growing width."""

from __future__ import annotations

from typing import Any

from lens.config import (
    ClassifierConfig,
    EmbedConfig,
    ModelConfig,
    PatchConfig,
    PoolerConfig,
    StackConfig,
    Stage,
)
from lens.family import Family
from lens.fields import Fields
from lens.mixers.shifted_windows import ShiftedWindows
from lens.weights import Rule, Table, alias, fused, same, skipped

EPS = 1e-5
"""Of the norms on the embedding and on merged positions, whatever `layer_norm_eps` says."""


def build(f: Fields) -> ModelConfig:
    f.ignore("encoder_stride")  # of the head that paints masked patches, which is not read
    f.ignore("drop_path_rate")
    f.ignore("stage_names", *(f"{_}out_{what}" for _ in ("", "_") for what in ("features", "indices")))
    f.only("path_norm", True)
    patches = PatchConfig(
        image_size=_pair(f.get("image_size", default=224)),
        patch_size=_pair(f.get("patch_size", default=4)),
        n_channels=f.get("num_channels", default=3),
        class_token=False,
    )
    stages = _stages(f, patches)
    first, last = stages[0], stages[-1]
    f.only("hidden_size", last.d_model)
    f.only("num_layers", len(stages))
    f.only("num_hidden_layers", len(stages))
    bias = {"q", "k", "v", "o"} if f.get("qkv_bias", default=True) else {"o"}
    positions = f.get("use_absolute_embeddings", default=False)
    classifies = f.has("classifier.weight", unknown=True)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=patches.n_positions,
        embed=EmbedConfig(
            d_vocab=0,
            d_embed=first.d_model,
            n_positions=patches.n_positions if positions else None,
            patches=patches,
            norm_eps=EPS,
            norm_first=True,
        ),
        stack=StackConfig(
            n_layers=sum(stage.n_layers for stage in stages),
            d_model=last.d_model,
            n_heads=last.n_heads,
            d_head=last.d_head,
            n_kv_heads=last.n_heads,
            d_mlp=last.d_mlp,
            causal=False,
            mixer=tuple(windows for stage in stages for windows in _windows(f, stage)),
            stages=stages,
            norm_eps=f.number("layer_norm_eps", default=1e-5),
            attn_bias=frozenset(bias),  # type: ignore[arg-type]
            act_fn=f.activation("hidden_act", default="gelu"),
        ),
        unembed=None,
        pooler=PoolerConfig(act_fn=None, at="mean", layer=False),
        classifier=ClassifierConfig(n_classes=f.n_classes()) if classifies else None,
    )


def _stages(f: Fields, patches: PatchConfig) -> tuple[Stage, ...]:
    """Each stage halves the map of the one before, rounding up, and doubles its width.

    Raises:
        ValueError: fields do not fit each other.
    """
    depths, heads = f.get("depths"), f.get("num_heads", "num_attention_heads")
    width, ratio = f.get("embed_dim", default=96), f.get("mlp_ratio", default=4.0)
    if any(side % part for side, part in zip(patches.image_size, patches.patch_size, strict=True)):
        raise ValueError(
            f"swin config: image_size {patches.image_size} is no multiple of {patches.patch_size}"
        )
    if len(depths) != len(heads):
        raise ValueError(f"swin config: depths has {len(depths)} stages and num_heads {len(heads)}")
    (rows, columns), found = patches.grid, []
    for n_layers, n_heads in zip(depths, heads, strict=True):
        sizes = {
            "d_model": width,
            "n_heads": n_heads,
            "d_head": width // n_heads,
            "d_mlp": int(ratio * width),
        }
        found.append(Stage(n_layers=n_layers, grid=(rows, columns), **sizes))
        rows, columns, width = (rows + 1) // 2, (columns + 1) // 2, 2 * width
    return tuple(found)


def _windows(f: Fields, stage: Stage) -> list[ShiftedWindows]:
    """Every other layer is moved by half a window, unless one window is all there is in one direction.

    Raises:
        ValueError: the map is smaller than a window, whose biases would not be its own.
    """
    window = f.get("window_size", default=7)
    if min(stage.grid) < window:
        rows, columns = stage.grid
        raise ValueError(
            f"swin config field window_size={window} is not supported where a stage has {rows} × {columns} patches"
        )
    moves = min(stage.grid) > window
    return [
        ShiftedWindows(window=window, shift=(l % 2) * moves * (window // 2)) for l in range(stage.n_layers)
    ]


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, of which one may stand for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def weights(cfg: ModelConfig) -> Table:
    stages = cfg.stack.stages or ()
    ends = (
        same("swin.embeddings.patch_embeddings.projection", "embed.patches.linear"),
        same("swin.embeddings.norm", "embed.ln"),
        fused("swin.embeddings.position_embeddings", "embed.positions.weight", weight="1 n d -> n d"),
        same("swin.layernorm", "stack.ln_final"),
        same("classifier", "classifier.linear"),
        *skipped("swin.embeddings.mask_token"),
    )
    rules, layer = [*ends], 0
    for number, stage in enumerate(stages):
        for block in range(stage.n_layers):
            rules += _layer(f"swin.encoder.layers.{number}.blocks.{block}", f"stack.blocks.{layer}")
            layer += 1
        merge, ours = f"swin.encoder.layers.{number}.downsample", f"stack.blocks.{layer - 1}.merge"
        if number + 1 < len(stages):
            rules += [same(f"{merge}.norm", f"{ours}.ln"), same(f"{merge}.reduction", f"{ours}.linear")]
    return Table("swin", tuple(rules), prefix="swin.")


BIASES = "relative_position_bias_table"


def _layer(theirs: str, ours: str) -> list[Rule]:
    """A block's names in checkpoints, then in memory."""
    old, new = f"{theirs}.attention.self", f"{theirs}.attention"
    table = f"{ours}.attn.relative.weight"
    saved = {
        **{f"{old}.{a}": f"attn.{b}" for a, b in {"query": "q", "key": "k", "value": "v"}.items()},
        f"{new}.output.dense": "attn.o",
        f"{theirs}.intermediate.dense": "mlp.up",
        f"{theirs}.output.dense": "mlp.down",
        f"{theirs}.layernorm_before": "ln1",
        f"{theirs}.layernorm_after": "ln2",
    }
    memory = {f"{new}.{name}_proj": f"attn.{name}" for name in "qkvo"}
    memory |= {f"{theirs}.mlp.fc1": "mlp.up", f"{theirs}.mlp.fc2": "mlp.down"}
    index = "relative_position_index"
    return [
        *(same(a, f"{ours}.{b}") for a, b in saved.items()),
        *(alias(same(a, f"{ours}.{b}")) for a, b in memory.items()),
        same(f"{old}.{BIASES}", table),
        alias(same(f"{new}.relative_position_bias.{BIASES}", table)),
        *skipped(f"{old}.{index}", f"{new}.relative_position_bias.{index}"),
    ]


FAMILY = Family("swin", ("swin",), build, weights)
