"""The shape of the first encoders: learned positions, norms after each sum, attention in both directions.

Sizes go by BERT's names or by DistilBERT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lens.config import ClassifierConfig, EmbedConfig, ModelConfig, PoolerConfig, StackConfig, UnembedConfig
from lens.fields import Fields
from lens.weights import Rule, alias, same

BLOCK = "stack.blocks.{l}"


def embed(f: Fields, **options: Any) -> EmbedConfig:
    """Tokens, positions and token types, normalised; `options` override."""
    values: dict[str, Any] = {
        "d_vocab": f.get("vocab_size"),
        "d_embed": f.get("hidden_size", "dim"),
        "n_positions": f.get("max_position_embeddings", default=512),
        "n_types": f.get("type_vocab_size", default=2),
        "norm_eps": f.number("layer_norm_eps", default=1e-12),
    }
    return EmbedConfig(**{**values, **options})


def stack(f: Fields, *, act_fn: str = "gelu", **options: Any) -> StackConfig:
    """Post-norm blocks with biases everywhere; `options` override."""
    f.only("is_decoder", False)
    d_model, n_heads = f.get("hidden_size", "dim"), f.get("num_attention_heads", "n_heads")
    values: dict[str, Any] = {
        "n_layers": f.get("num_hidden_layers", "n_layers"),
        "d_model": d_model,
        "n_heads": n_heads,
        "d_head": d_model // n_heads,
        "n_kv_heads": n_heads,
        "d_mlp": f.get("intermediate_size", "hidden_dim"),
        "causal": False,
        "norm_eps": f.number("layer_norm_eps", default=1e-12),
        "norm_placement": frozenset({"add"}),
        "final_norm": False,
        "attn_bias": frozenset({"q", "k", "v", "o"}),
        "act_fn": f.activation("hidden_act", "activation", default=act_fn),
    }
    return StackConfig(**{**values, **options})


def unembed(f: Fields, transform: str, **options: Any) -> UnembedConfig:
    """The head of a masked language model; `transform` names the activation of its hidden layer."""
    values: dict[str, Any] = {
        "d_vocab": f.get("vocab_size"),
        "d_embed": f.get("hidden_size", "dim"),
        "bias": True,
        "transform": transform,
        "norm_eps": f.number("layer_norm_eps", default=1e-12),
    }
    return UnembedConfig(**{**values, **options})


def pooler(f: Fields, *tensors: str, act_fn: str = "tanh") -> PoolerConfig | None:
    """A pooler, if the checkpoint has one of these tensors."""
    return PoolerConfig(act_fn=act_fn) if f.has(*tensors) else None


def classifier(f: Fields, *, text: str, token: str = "classifier", pair: str = "") -> ClassifierConfig | None:
    """The classifier that the checkpoint's tensors show, given the modules' names.

    `text` is the layer in front of a classifier of texts, without which `token` (or `qa_outputs`, which says
    where an answer starts and ends) is one of tokens; `pair` tells whether two texts follow each other.
    """
    if pair and f.has(f"{pair}.weight"):
        return ClassifierConfig(n_classes=2, task="follows")
    if f.has("qa_outputs.weight"):
        return ClassifierConfig(n_classes=2, of="token", task="answer")
    of_text = f.has(f"{text}.weight")
    if f.chooses and not of_text:
        raise ValueError(f"{f.family}: models of multiple choice are not supported")
    if f.has(f"{token}.weight", "classifier.out_proj.weight"):
        return ClassifierConfig(n_classes=f.n_classes(), of="text" if of_text else "token")
    return None


def classes(cfg: ModelConfig, *, label: str = "classifier", follows: str = "") -> tuple[Rule, ...]:
    """The classifier that a model has, by the name that its task gives it."""
    if cfg.classifier is None:
        return ()
    names = {"label": label, "follows": follows, "answer": "qa_outputs"}
    return (same(names[cfg.classifier.task], "classifier.linear"),)


def mlm_head(path: str, *, dense: str, norm: str) -> tuple[Rule, ...]:
    """The head of a masked language model; its bias goes by two names."""
    return (
        same(f"{path}.{dense}", "unembed.transform.dense"),
        same(f"{path}.{norm}", "unembed.transform.ln"),
        same(f"{path}.decoder.weight", "unembed.linear.weight"),
        same(f"{path}.bias", "unembed.linear.bias"),
        alias(same(f"{path}.decoder.bias", "unembed.linear.bias")),
    )


def embeddings(path: str) -> tuple[Rule, ...]:
    """The four tensors of the embedding."""
    names = {
        "word_embeddings": "tokens",
        "position_embeddings": "positions",
        "token_type_embeddings": "types",
    }
    tables = tuple(same(f"{path}.{theirs}", f"embed.{ours}") for theirs, ours in names.items())
    return (*tables, same(f"{path}.LayerNorm", "embed.ln"))


QKV = {"query": "q", "key": "k", "value": "v"}


def layers(path: str, projections: Mapping[str, str] = QKV) -> tuple[Rule, ...]:
    """A block, as BERT names its parts; `projections` are those beside attention's output."""
    attention, mlp = f"{path}.attention", f"{BLOCK}.mlp"
    return (
        *(same(f"{attention}.self.{theirs}", f"{BLOCK}.attn.{ours}") for theirs, ours in projections.items()),
        same(f"{attention}.output.dense", f"{BLOCK}.attn.o"),
        same(f"{attention}.output.LayerNorm", f"{BLOCK}.ln1"),
        same(f"{path}.intermediate.dense", f"{mlp}.up"),
        same(f"{path}.output.dense", f"{mlp}.down"),
        same(f"{path}.output.LayerNorm", f"{BLOCK}.ln2"),
    )
