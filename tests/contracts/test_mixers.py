"""Every file in `lens/mixers/` is picked up here: whole and in pieces, padded, generating, in threads, as JSON."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import lens.mixers
from lens.config import ModelConfig
from lens.family import find
from lens.inputs import ModelInputs
from lens.kv import KeyValues
from lens.mixer import MIXERS
from lens.model import Transformer
from lens.parameters import shapes_of
from lens.registry import names
from tests import zoo
from tests.mixers import NAMES, SPECIMENS, config, ids, model
from tests.parity import EXACT, relative_error
from tests.parity import SPECIMENS as FAMILY_SPECIMENS

each = pytest.mark.parametrize(("mixer", "name"), NAMES, ids=[f"{m}-{n}" for m, n in NAMES])
continuing = pytest.mark.parametrize(
    ("mixer", "name"),
    [
        (m, n)
        for m, n in NAMES
        if config(m, n).causal and all(x is None or x.continues for x in config(m, n).stack.mixers)
    ],
)


def of_images() -> set[str]:
    """Mixers of families whose inputs are no texts: the contract tests of families run those."""
    found = set()
    for family, name in FAMILY_SPECIMENS:
        hf = zoo.config(zoo.ZOO[family][name]).to_dict()
        if "image_size" in hf:
            found |= {mixer.kind for mixer in find(hf).config(hf).stack.mixers if mixer is not None}
    return found


@pytest.mark.parametrize("mixer", names(lens.mixers))
def test_mixer_is_registered_and_has_specimens(mixer: str) -> None:
    assert MIXERS.get(mixer).name == mixer, f"lens/mixers/{mixer}.py: MIXER.name must be {mixer!r}"
    assert MIXERS.get(mixer).config.kind == mixer
    assert SPECIMENS.get(mixer) or mixer in of_images(), (
        f"lens/mixers/{mixer}.py has no specimen: add {mixer!r} to tests/mixers.py"
    )


@each
def test_configurations_survive_json(mixer: str, name: str) -> None:
    cfg = config(mixer, name)
    again = ModelConfig.from_dict(json.loads(json.dumps(cfg.to_dict())))
    assert again == cfg
    made = model(mixer, name)
    assert {n: tuple(x.shape) for n, x in made.state_dict().items()} == shapes_of(cfg)


def run_in_pieces(m: Transformer, given: Tensor, real: Tensor | None, cuts: tuple[int, ...]) -> Tensor:
    past, found = m.new_past(), []
    for start, stop in pairwise((0, *cuts, given.shape[1])):
        mask = None if real is None else real[:, start:stop]
        if mask is not None and not mask.any(-1).all():
            mask = real[:, :stop] if real is not None else None
        found.append(m(given[:, start:stop], attention_mask=mask, past=past))
    return torch.cat(found, 1)


@pytest.mark.parametrize("cuts", [(4,), (1, 2, 7), tuple(range(1, 9))], ids=str)
@continuing
def test_a_run_in_pieces_equals_the_whole(mixer: str, name: str, cuts: tuple[int, ...]) -> None:
    m, given = model(mixer, name), ids()
    assert relative_error(run_in_pieces(m, given, None, cuts), m(given)) < EXACT


@pytest.mark.parametrize("side", ["right", "left", "within"])
@each
def test_padding_does_not_count(mixer: str, name: str, side: str) -> None:
    """Wherever it is, also between two runs that continue each other."""
    m, given = model(mixer, name), ids()
    place = torch.arange(9).expand(3, -1)
    n = torch.tensor([[0], [2], [3]])
    real = {"right": place < 9 - n, "left": place >= n, "within": (place < 1) | (place > n)}[side]
    runs = [m(given, attention_mask=real)]
    if m.cfg.causal and all(x is None or x.continues for x in m.cfg.stack.mixers):
        runs.append(run_in_pieces(m, given, real, (4, 5)))
    for row, keep in enumerate(real):
        alone = m(given[row, keep][None])
        for together in runs:
            assert relative_error(together[row, keep], alone[0]) < EXACT


@continuing
def test_a_frozen_past_serves_copies_of_its_rows_and_stays(mixer: str, name: str) -> None:
    m, given = model(mixer, name), ids(2)
    past = m.new_past()
    m(given[:, :5], past=past)
    past.freeze()
    whole = m(given)
    for copies in (1, 3):
        more = given.repeat(copies, 1)
        assert relative_error(m(more[:, 5:], past=past), whole[:, 5:].repeat(copies, 1, 1)) < EXACT
    assert len(past) == 5
    assert relative_error(m(given[1:, 5:], past=past.rows(slice(1, 2))), whole[1:, 5:]) < EXACT
    grown = past.copies(2)
    m(given.repeat(2, 1)[:, 5:7], past=grown)
    assert relative_error(m(given.repeat(2, 1)[:, 7:], past=grown), whole[:, 7:].repeat(2, 1, 1)) < EXACT


@continuing
def test_a_run_that_fails_leaves_the_past_as_it_was(mixer: str, name: str) -> None:
    m, given = model(mixer, name), ids(1)
    past = m.new_past()
    m(given[:, :4], past=past)

    def fail(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    last = f"blocks.{m.cfg.n_layers - 1}.hook_resid_post"
    with pytest.raises(KeyboardInterrupt):
        m.run_with_cache(given[:, :3], [], edits={last: fail}, past=past)
    assert relative_error(m(given[:, 4:], past=past), m(given)[:, 4:]) < EXACT


def test_a_part_of_a_state_is_refused() -> None:
    past = KeyValues(1)
    past.keep(0, state=torch.ones(2, 3))
    past.advance(4, None)
    assert past.n_rows == 2
    assert past.upto(4).recall(0, "state", 4).shape == (4, 3)  # type: ignore[union-attr]
    with pytest.raises(
        ValueError, match="3 of 4 positions were asked for and a recurrent state is known after"
    ):
        past.upto(3)


@continuing
def test_greedy_generation_equals_running_everything_again(mixer: str, name: str) -> None:
    m, given = model(mixer, name), ids(2, 4)
    said = m.generate(given, 5)
    for _ in range(5):
        given = torch.cat([given, m(given)[:, -1:].argmax(-1)], 1)
    assert torch.equal(said, given)


@continuing
def test_prompts_of_different_lengths_are_continued_as_if_alone(mixer: str, name: str) -> None:
    m, given = model(mixer, name), ids(2, 7)
    real = torch.arange(7) >= torch.tensor([[0], [3]])
    said = m.generate(ModelInputs(ids=given, mask=real), 5)
    assert torch.equal(said[0], m.generate(given[:1], 5)[0])
    assert torch.equal(said[1, 3:], m.generate(given[1:, 3:], 5)[0])


@each
def test_threads_do_not_disturb_each_other(mixer: str, name: str) -> None:
    m, given = model(mixer, name), ids(2)
    sites = [site for site, s in m.sites.items() if s.layer is not None and not s.conditional]

    def job(n: int) -> Tensor:
        site = sites[n % len(sites)]
        return m.run_with_cache(given, [], edits={site: lambda x: x * (1 + n % 3)})[0]

    alone = [job(n) for n in range(60)]
    with ThreadPoolExecutor(4) as pool:
        for once, again in zip(alone, pool.map(job, range(60)), strict=True):
            assert torch.equal(once, again)


@each
def test_gradients_through_padding_are_finite(mixer: str, name: str) -> None:
    m, given = model(mixer, name), ids(2)
    real = torch.arange(9) >= torch.tensor([[0], [3]])
    logits, cache = m.run_with_cache(given, "resid_pre", attention_mask=real, grad=True)
    gradients = torch.autograd.grad(logits[:, -1].sum(), list(cache.values()), allow_unused=True)
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert all(float(g[1, :3].abs().max()) == 0 for g in gradients), "padding has an effect"


@continuing
def test_texts_of_any_length(mixer: str, name: str) -> None:
    m = model(mixer, name)
    long = ids(1, 41)
    if m.cfg.stack.endless:
        assert m(long).isfinite().all()
    else:
        with pytest.raises(ValueError, match="takes at most 40"):
            m(long)


@each
def test_half_precision_is_near(mixer: str, name: str) -> None:
    """States are kept in float32, so that errors do not pile up."""
    full, half = model(mixer, name, torch.float32), model(mixer, name, torch.bfloat16)
    given = ids(2, 30)
    assert relative_error(half(given).float(), full(given)) < 0.1
