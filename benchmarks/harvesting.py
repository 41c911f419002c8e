"""Resident memory of a harvest above the loaded model: bounded, whatever the number of tokens.

Each case in a process of its own, whose high-water mark is set back once the model and its libraries are there. The
bound is that of `probes/harvest.py`: a shard (268 MB), 100 bytes per token, and the forward of one batch of at most
4,096 tokens, which holds no more than eight streams (x, normalised, q, k, v, z, and what attention and MLP add) and
four rows of neurons in float32.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import Row
from benchmarks.memory import status, trim
from lens.progress import Progress, silent

if TYPE_CHECKING:
    from lens.model import Transformer
    from probes.labelled import Labelled

TITLE = "Harvesting"
UNIT = "MB above the model"
ABOUT = (
    "Every token of templated texts at 31 sites (the embedding and the stream after 30 layers, d_model 576), float16 "
    "on disk, shards of 256 MiB: the highest resident memory less that before the call. `narrow` is a model of random "
    "weights with SmolLM2's depth and width and small MLPs. Linux only."
)
SITES = ["hook_embed", "resid_post"]
SHARD, PER_TOKEN, BATCH = 2**28, 100, 4096
NEURONS = {"narrow": 16, "smollm2": 1536}
CASES = {
    "narrow, 10,000 tokens": 10_000,
    "narrow, 100,000 tokens": 100_000,
    "smollm2, 100,000 tokens": 100_000,
}


def measure(*, quick: bool = False, progress: Progress = silent) -> list[Row]:
    """Megabytes per case; none where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    rows = []
    for i, case in enumerate([*CASES][:1] if quick else CASES):
        progress(i, len(CASES), case)
        command = [sys.executable, "-m", "benchmarks.harvesting", case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"measuring {case!r} failed: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout)
        rows.append(Row("harvesting", case.split(",")[0], case, found["megabytes"], UNIT, bound(case)))
        rows.append(Row("harvesting", case.split(",")[0], case, found["seconds"], "CPU seconds"))
    return rows


def bound(case: str) -> float:
    """The most that a harvest may take above the model, in megabytes."""
    floats = 8 * 576 + 4 * NEURONS[case.split(",", maxsplit=1)[0]]
    return round((SHARD + PER_TOKEN * CASES[case] + 4 * floats * BATCH) / 1e6)


def measured(case: str, folder: str) -> dict[str, float]:
    """Peak memory and CPU time of one case.

    Args:
        folder: where the store goes, 3.6 GB for 100,000 tokens.
    """
    import torch

    from probes import harvest

    torch.set_num_threads(1)
    model = _narrow() if case.startswith("narrow") else _smollm2()
    data = _texts(model, CASES[case])
    harvest(model, data.texts[:64], SITES, positions="all")  # libraries loaded, buffers of the kernels made
    gc.collect()
    trim()
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = status("VmRSS"), time.process_time()
    store = harvest(model, data, SITES, positions="all", dtype="float16", out=Path(folder, "store"))
    seconds, peak = time.process_time() - begun, status("VmHWM")
    assert len(store.sites) == 31 and store.n >= CASES[case]
    return {"megabytes": round((peak - before) / 1000, 1), "seconds": round(seconds, 1), "tokens": store.n}


def _smollm2() -> Transformer:
    import lens

    return lens.load("smollm2")


def _narrow() -> Transformer:
    """30 layers of d_model 576 with little in them, over the bytes of a text."""
    import tokenizers
    import torch

    from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
    from lens.model import Transformer
    from lens.tokens import Tokenizer

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    cfg = ModelConfig(
        family="llama",
        name="narrow",
        n_ctx=512,
        embed=EmbedConfig(d_vocab=256, d_embed=576, n_positions=512),
        stack=StackConfig(n_layers=30, d_model=576, n_heads=1, d_head=16, n_kv_heads=1, d_mlp=16),
        unembed=UnembedConfig(d_vocab=256, d_embed=576),
    )
    model = Transformer(cfg, Tokenizer(backend))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return model


def _texts(model: Transformer, n_tokens: int) -> Labelled:
    """Texts of so many tokens together, at least."""
    from probes import load_dataset

    assert model.tokenizer is not None
    many = load_dataset("templates", task="count", n=8000)
    total = 0
    for i, text in enumerate(many.texts):
        total += len(model.tokenizer.encode(text))
        if total >= n_tokens:
            return many.subset(range(i + 1))
    raise ValueError(f"8,000 texts have {total} tokens, and {n_tokens} are to be measured")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measured(sys.argv[1], temporary)))
