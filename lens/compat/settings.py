"""`model.cfg` of a drop-in model: the core's configuration, which also answers to TransformerLens's names."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lens.compat.config import HookedTransformerConfig, described
from lens.config import ModelConfig
from lens.nearest import unknown

SETTABLE = (
    "use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in", "default_prepend_bos", "device",
    "seed", "model_name", "tokenizer_name", "tokenizer_prepends_bos", "init_weights", "original_architecture",
)  # fmt: skip
"""What can be set on a model that is there. Everything else says what it is."""


class Settings(ModelConfig):
    """A `ModelConfig` with TransformerLens's fields beside its own: `cfg.use_attn_result = True`.

    Where a name is both, the core's meaning holds: `n_key_value_heads` is a number also where no heads are shared.
    """

    @classmethod
    def of(cls, cfg: ModelConfig, hooked: HookedTransformerConfig | None = None, **known: Any) -> Settings:
        """The same configuration; `hooked` is what it is in TransformerLens's words, `known` a part of that."""
        made = cls(**{field.name: getattr(cfg, field.name) for field in fields(ModelConfig)})
        if hooked is None:
            hooked = described(cfg, **known)
        object.__setattr__(made, "hooked", hooked)
        return made

    hooked: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self.hooked is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.hooked, name)

    def to_dict(self) -> dict[str, Any]:
        """TransformerLens's fields, of which `HookedTransformerConfig.from_dict` makes another configuration."""
        return self.hooked.to_dict()

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.hooked)})

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in SETTABLE:
            known = {field.name for field in fields(HookedTransformerConfig)} | {
                f.name for f in fields(ModelConfig)
            }
            if name not in known:
                raise ValueError(unknown("field", name, known, of="this configuration"))
            raise ValueError(
                f"{name} says what this model is and cannot be set; change the weights, or load another"
            )
        setattr(self.hooked, name, value)
