"""sae-lens 6.54.12 on a tiny model of ours: its runner trains a sparse autoencoder on a layer's activations, and the
model is run with what it reconstructs. See `__init__.py` for where it runs."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch

import lens.compat

CONFIG = {
    "n_layers": 2, "d_model": 32, "n_ctx": 16, "d_head": 8, "n_heads": 4, "d_mlp": 64, "d_vocab": 64,
    "act_fn": "gelu", "normalization_type": "LN", "device": "cpu", "seed": 1, "initializer_range": 0.2,
}  # fmt: skip
SITE = "blocks.0.hook_resid_post"


def trained(model: Any, folder: str) -> Any:
    """An autoencoder that sae-lens's runner trained on the model's activations."""
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from sae_lens import (  # pyright: ignore[reportMissingImports]
        LanguageModelSAERunnerConfig,
        LanguageModelSAETrainingRunner,
        LoggingConfig,
        StandardTrainingSAEConfig,
    )

    ids = torch.randint(1, 64, (512, 16), generator=torch.Generator().manual_seed(4))
    config = LanguageModelSAERunnerConfig(
        sae=StandardTrainingSAEConfig(d_in=32, d_sae=128, l1_coefficient=2.0, apply_b_dec_to_input=True),
        model_name="tiny", hook_name=SITE, dataset_path="", is_dataset_tokenized=True, context_size=16,
        streaming=False, prepend_bos=False, training_tokens=40_000, train_batch_size_tokens=256,
        store_batch_size_prompts=32, n_batches_in_buffer=32, lr=3e-3, device="cpu", seed=0, n_eval_batches=1,
        logger=LoggingConfig(log_to_wandb=False), checkpoint_path=None, exclude_special_tokens=False,
        output_path=folder,
    )  # fmt: skip
    rows = Dataset.from_dict({"input_ids": ids.tolist()})
    return LanguageModelSAETrainingRunner(config, override_dataset=rows, override_model=model).run()


def main() -> None:
    warnings.simplefilter("ignore")
    lens.compat.install(quiet=True)
    told: dict[str, Any] = {"sae-lens": version("sae-lens")}
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        model = lens.HookedTransformer(lens.HookedTransformerConfig(**CONFIG)).requires_grad_(False).eval()
        sae = trained(model, folder)
        ids = torch.randint(1, 64, (8, 16), generator=torch.Generator().manual_seed(5))
        logits, cache = model.run_with_cache(ids, names_filter=SITE)
        x = cache[SITE]
        features = sae.encode(x)
        made = sae.decode(features)
        spliced = model.run_with_hooks(ids, fwd_hooks=[(SITE, lambda x, hook: sae(x))])
        told |= {
            "share of variance explained": float(1 - (x - made).var() / x.var()),
            "features active per token": float((features > 0).float().sum(-1).mean()),
            "logits with the reconstruction, from the model's: mean difference": float(
                (spliced - logits).abs().mean()
            ),
            "logits: mean size": float(logits.abs().mean()),
            "features seen by the autoencoder's own hook points": list(
                sae.run_with_cache(x)[1]["hook_sae_acts_post"].shape
            ),
        }
        try:
            sae_lens: Any = import_module("sae_lens")
            wrapped = sae_lens.HookedSAETransformer(lens.HookedTransformerConfig(**CONFIG))
            wrapped.add_sae(sae)
            told["HookedSAETransformer"] = list(wrapped(ids).shape)
        except (AttributeError, TypeError, ValueError) as error:
            told["HookedSAETransformer"] = f"does not work: {type(error).__name__}: {error}"
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
