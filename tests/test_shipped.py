"""The small models that ship with the project: each folder is what its script makes, and scores what its card says."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lens
from lens import shipped
from lens.inputs import ModelInputs
from lens.load import available
from lens.model import Transformer
from lens.shipped import digits_vit, reorder_ed
from lens.shipped.making import Making
from lens.train import Recipe, revision_of

FOLDER = Path(shipped.__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
MAKINGS: list[Making] = [import_module(f"lens.shipped.{name.replace('-', '_')}").MAKING for name in NAMES]


def leaves(value: Any, path: str = "") -> dict[str, float]:
    """Every number in nested dicts and lists, by its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in leaves(inner, f"{path}/{key}").items()}
    return {path: value}


def card(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name / "card.json").read_text(encoding="utf-8"))


def test_every_folder_has_its_script() -> None:
    assert [making.name for making in MAKINGS] == NAMES
    assert {known.name for known in available() if known.status == "shipped"} == set(NAMES)
    assert len(NAMES) == 3


@pytest.mark.parametrize("making", MAKINGS, ids=lambda m: m.name)
def test_the_folder_is_what_the_script_says(making: Making) -> None:
    model, said = lens.load(making.name), card(making.name)
    assert model.cfg == making.config()
    assert revision_of(model.state_dict()) == said["weights"]
    assert said["recipe"] == json.loads(json.dumps(vars(making.recipe)))
    assert (said["description"], said["licence"]) == (making.description, "MIT")
    assert sum(path.stat().st_size for path in (FOLDER / making.name).iterdir()) <= 2 * 2**20
    curve = said["loss_curve"]
    assert len(curve["loss"]) == -(-said["recipe"]["steps"] // curve["every"])
    assert curve["loss"][-1] < curve["loss"][0] / 2


@pytest.mark.parametrize("making", MAKINGS, ids=lambda m: m.name)
def test_the_card_is_what_is_measured(making: Making) -> None:
    said, found = leaves(card(making.name)["measured"]), leaves(making.measure(lens.load(making.name)))
    assert said.keys() == found.keys()
    off = {path: (said[path], found[path]) for path in said if abs(said[path] - found[path]) > 2e-3}
    assert not off


@pytest.mark.parametrize("making", MAKINGS, ids=lambda m: m.name)
def test_the_script_makes_a_folder_that_loads(making: Making, tmp_path: Path) -> None:
    made = making.make(tmp_path / "made", Recipe(steps=30, batch_size=8, warmup=3, seed=3))
    first, last = made["loss_curve"]["loss"]
    assert last < first
    assert revision_of(lens.load(tmp_path / "made").state_dict()) == made["weights"]


@pytest.fixture(scope="module")
def reorder() -> Transformer:
    return lens.load("reorder-ed")


def test_digits_are_read() -> None:
    assert card("digits-vit")["measured"]["accuracy_test"] >= 0.95
    train, test = digits_vit.parts()
    assert not set(train.tolist()) & set(test.tolist())
    assert len(train) + len(test) == 1797


def test_digits_as_pictures() -> None:
    """Arrays and pictures of 0 to 255 go in as they are, of any size, light on dark."""
    from PIL import Image
    from sklearn.datasets import load_digits

    model, found = lens.load("digits-vit"), load_digits()
    assert model.preprocessing == digits_vit.PREPROCESSING
    rows = np.arange(0, 500, 5)  # test images
    pictures = [(image / 16 * 255).round().astype(np.uint8) for image in found.images[rows]]
    made = model.to_inputs(pictures).image
    assert made is not None and torch.allclose(made, digits_vit.digits()[0][rows], atol=1 / 127)
    right = model(pictures).argmax(-1).numpy() == found.target[rows]
    assert right.mean() >= 0.95
    large = [Image.fromarray(one).resize((28, 28)).convert("RGB") for one in pictures]
    assert (model(large).argmax(-1).numpy() == found.target[rows]).mean() >= 0.85


def test_digits_need_their_patches(tmp_path: Path) -> None:
    """With the class token looking at itself alone, the model knows nothing of the image."""
    model = lens.load("digits-vit")
    images, labels = digits_vit.digits()
    test = digits_vit.parts()[1]

    def alone(pattern: torch.Tensor) -> torch.Tensor:
        pattern = torch.zeros_like(pattern)
        pattern[..., 0] = 1
        return pattern

    edits = dict.fromkeys((f"blocks.{layer}.attn.hook_pattern" for layer in range(2)), alone)
    logits, _ = model.run_with_cache(ModelInputs(image=images[test]), [], edits=edits)
    assert (logits.argmax(-1) == labels[test]).float().mean() < 0.2


def test_letters_are_reordered(reorder: Transformer) -> None:
    assert min(card("reorder-ed")["measured"]["exact"].values()) >= 0.99
    said = reorder.generate(["reverse h o u s e", "sort h o u s e"], max_new_tokens=8)
    assert said == ["e s u o h", "e h o s u"]


def test_sequences_are_what_their_orders_say() -> None:
    sources, answers = reorder_ed.sequences(200, torch.Generator().manual_seed(7))
    given = reorder_ed.reading(sources, answers)
    assert given.ids is not None and given.mask is not None
    lengths = set()
    for source, answer, read, mask in zip(sources, answers, given.ids, given.mask, strict=True):
        words = [reorder_ed.WORDS[i] for i in source if i]
        letters = words[1:][::-1] if words[0] == "reverse" else sorted(words[1:])
        assert [reorder_ed.WORDS[i] for i in answer if i] == [*letters, reorder_ed.EOS]
        assert [reorder_ed.WORDS[i] for i in read[mask]] == [reorder_ed.BOS, *letters]
        lengths.add(len(letters))
    assert lengths == set(range(reorder_ed.SHORTEST, reorder_ed.LONGEST + 1))
