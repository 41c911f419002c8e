"""`install()`: imports of `transformer_lens` find this project's drop-in, until `uninstall()`.

Old code then runs as it is:

    import lens.compat
    lens.compat.install()
    from transformer_lens import HookedTransformer, HookedTransformerConfig, ActivationCache, patching, utils

Names that TransformerLens 4 still has and that work here stay its own: `SVDInterpreter`, `head_detector`, and what
`utils` holds beside `Slice` and `composition_scores`. Code that has imported a name before keeps what it has.
"""

from __future__ import annotations

import sys
import threading
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGE = "transformer_lens"
TOLD = (
    "transformer_lens: HookedTransformer, HookedEncoder, HookedEncoderDecoder, HookedTransformerConfig, "
    "ActivationCache, FactoredMatrix, HookPoint, patching and utils are now those of lens.compat "
    "(lens.compat.uninstall() undoes this)"
)
_MISSING: Any = object()
_lock = threading.Lock()
_undo: list[tuple[Any, str, Any]] = []  # a module or sys.modules, a name, what was there


def install(quiet: bool = False) -> None:
    """Let `transformer_lens` mean this project's drop-in, in this process, and say so in one line.

    Again and again does no more than once.

    Args:
        quiet: say nothing.

    Raises:
        ImportError: transformer-lens is not there: SVD and head detection are its own, `HookedRootModule` stands on it.
    """
    with _lock:
        if _undo:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies, such as tqdm's about notebooks
            package = import_module(PACKAGE)
        modules = _modules()
        for name, module in modules.items():
            _put(sys.modules, f"{PACKAGE}.{name}", module)
        for name, value in _names(modules).items():
            _put(package, name, value)
    if not quiet:
        sys.stdout.write(f"{TOLD}\n")


def uninstall() -> None:
    """Let `transformer_lens` mean what it was; where `install` was not called, nothing happens."""
    with _lock:
        while _undo:
            where, name, before = _undo.pop()
            if isinstance(where, dict):
                where.pop(name) if before is _MISSING else where.__setitem__(name, before)
            elif before is _MISSING:
                delattr(where, name)
            else:
                setattr(where, name, before)


def installed() -> bool:
    """Does `transformer_lens` mean the drop-in?"""
    return bool(_undo)


def _put(where: Any, name: str, value: Any) -> None:
    held = where if isinstance(where, dict) else vars(where)
    _undo.append((where, name, held.get(name, _MISSING)))
    if isinstance(where, dict):
        where[name] = value
    else:
        setattr(where, name, value)


def _modules() -> dict[str, ModuleType]:
    """The modules of that package that become ours, by name."""
    from lens.compat import (
        cache,
        config,
        encoder,
        encoder_decoder,
        factored_matrix,
        hook_modules,
        loading,
        model,
        parts,
        slices,
        texts,
    )
    from lens.mlp import ACTIVATIONS, MLP

    theirs = import_module(f"{PACKAGE}.hook_points")
    root = hook_modules.HookedRootModule
    hooks = {**vars(theirs), "HookPoint": hook_modules.HookPoint, "HookedRootModule": root}
    utils = dict(vars(import_module(f"{PACKAGE}.utilities")))
    utils |= {"Slice": slices.Slice, "composition_scores": factored_matrix.composition_scores}
    utils |= {"FactoredMatrix": factored_matrix.FactoredMatrix, "ACTIVATION_FN_DICT": ACTIVATIONS}
    utils |= {"gelu_pytorch_tanh": ACTIVATIONS["gelu_pytorch_tanh"]}
    utils["get_input_with_manually_prepended_bos"] = texts.begun_by_hand
    hooked = {"HookedTransformer": model.HookedTransformer, "Output": model.Output, "HookedRootModule": root}
    hooked |= {
        "HookedTransformerConfig": config.HookedTransformerConfig,
        "ActivationCache": cache.ActivationCache,
    }
    names = ("HookedTransformerKeyValueCache", "HookedTransformerKeyValueCacheEntry")
    stores = {name: getattr(hook_modules, name) for name in names}
    held: dict[str, dict[str, Any]] = {
        "hook_points": hooks,
        "utils": utils,
        "HookedTransformer": {**hooked, "Loss": Any, "SingleLoss": Any, "LossPerToken": Any},
        "HookedEncoder": {"HookedEncoder": encoder.HookedEncoder},
        "HookedEncoderDecoder": {"HookedEncoderDecoder": encoder_decoder.HookedEncoderDecoder},
        "BertNextSentencePrediction": {"BertNextSentencePrediction": encoder.BertNextSentencePrediction},
        "HookedTransformerConfig": {"HookedTransformerConfig": config.HookedTransformerConfig},
        "ActivationCache": {"ActivationCache": cache.ActivationCache},
        "FactoredMatrix": {"FactoredMatrix": factored_matrix.FactoredMatrix},
        "past_key_value_caching": stores,
        "loading_from_pretrained": {
            "get_official_model_name": loading.official_name,
            "get_pretrained_model_config": loading.pretrained_config,
        },
        "components": dict(parts.BY_NAME),
        "components.mlps": {},
        "components.mlps.can_be_used_as_mlp": {"CanBeUsedAsMLP": MLP},
    }
    return {name: _module(name, values) for name, values in held.items()} | {"patching": _patching()}


def _patching() -> ModuleType:
    """The patching functions; they stand on what shares prefixes in `circuits`, which this package does not need."""
    return import_module("circuits.act_patches")


def _module(name: str, values: dict[str, Any]) -> ModuleType:
    module = ModuleType(f"{PACKAGE}.{name}", f"`{PACKAGE}.{name}`, as lens.compat gives it.")
    dunder = {"__name__", "__doc__", "__spec__", "__loader__", "__package__", "__path__"}
    vars(module).update({key: value for key, value in values.items() if key not in dunder})
    return module


def _names(modules: dict[str, ModuleType]) -> dict[str, Any]:
    """What the package itself gives: classes under the names of their modules, other modules as they are."""
    classes = (
        "HookedTransformer", "HookedEncoder", "HookedEncoderDecoder", "BertNextSentencePrediction",
        "HookedTransformerConfig", "ActivationCache", "FactoredMatrix",
    )  # fmt: skip
    found: dict[str, Any] = {name: getattr(modules[name], name) for name in classes}
    store = "HookedTransformerKeyValueCache"
    found[store] = getattr(modules["past_key_value_caching"], store)
    found |= {f"Easy{name.removeprefix('Hooked')}": found[name] for name in (classes[0], classes[4], store)}
    named = (
        "hook_points",
        "utils",
        "patching",
        "past_key_value_caching",
        "loading_from_pretrained",
        "components",
    )
    return found | {name: modules[name] for name in named} | {"loading": modules["loading_from_pretrained"]}
