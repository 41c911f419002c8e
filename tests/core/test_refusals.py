"""What a user may get wrong in a run is one clear line, never a wrong number."""

from __future__ import annotations

import pytest
import torch

import lens
from lens import arguments, taps, text
from lens.sites import resolve


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda x: x[:, :1], r"an edit at 'blocks.0.attn.hook_z' returned \(1, 1, 4, 32\)"),
        (lambda x: x.double(), "returned .* torch.float64; the activation there is .* torch.float32"),
        (lambda x: 0.0, "returned float; it must return a tensor or None"),
    ],
)
def test_an_edit_must_fit_its_place(induction, edit, message):
    with pytest.raises(ValueError, match=message):
        induction(torch.tensor([[0, 5, 6]]), taps=lens.Taps(edits={"blocks.0.attn.hook_z": edit}))


@pytest.mark.parametrize("edit", ["zero", torch.zeros(1), [0.0]])
def test_an_edit_is_a_function(edit):
    """Said before the run; what a tensor would do is not guessed."""
    with pytest.raises(
        ValueError, match=r"an edit is a function of the activation, such as torch\.zeros_like, not"
    ):
        taps._several(edit)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[0.0, -1e9, 0.0]], "must hold True or 1"),
        ([[0, 0, 0]], "row 0 of attention_mask has no real token"),
        ([[1, 1]], "attention_mask is"),
    ],
)
def test_a_mask_must_say_what_is_real(induction, mask, message):
    with pytest.raises(ValueError, match=message):
        arguments.validity(torch.tensor(mask), None, 3, 1, induction.device)


@pytest.mark.parametrize("inputs", [None, 5, [[0, 5]], []])
def test_inputs_of_another_kind_are_named(induction, inputs):
    with pytest.raises(ValueError, match="expected a text, a list of texts or a tensor of token ids"):
        text.to_tokens(induction, inputs)


@pytest.mark.parametrize("name", [5, None, (), [("pattern",), 5]])
def test_sites_are_named_by_strings_and_tuples(induction, name):
    with pytest.raises(ValueError, match="a site is named by a string or a tuple"):
        resolve([name] if not isinstance(name, list) else name, induction.sites)
