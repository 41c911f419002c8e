"""What one run reads, edits and differentiates."""

from __future__ import annotations

import pytest
import torch

from lens.taps import OFF, Halt, Joined, Off, Taps
from tests.core.specimens import D_VOCAB, N_LAYERS, ids, model

RESID = "blocks.1.hook_resid_post"


def test_edits_act_in_order_and_reads_come_after_them() -> None:
    taps = Taps(["x"], {"x": [lambda x: x + 1, lambda x: None, lambda x: x * 10]})
    assert taps("x", torch.tensor(2.0)).item() == 30
    assert taps.seen["x"].item() == 30
    assert taps("y", torch.tensor(2.0)).item() == 2
    assert set(taps.seen) == {"x"}


def test_a_single_edit_needs_no_list() -> None:
    assert Taps(edits={"x": lambda x: -x})("x", torch.tensor(2.0)).item() == -2


def test_an_edit_in_place_that_returns_nothing_is_seen() -> None:
    m, prompt = model(), ids()

    def wipe(x: torch.Tensor) -> None:
        x[:, 2:].zero_()

    logits, cache = m.run_with_cache(prompt, RESID, edits={RESID: wipe})
    assert (cache[RESID][:, 2:] == 0).all() and (cache[RESID][:, :2] != 0).all()
    replaced = m.run_with_cache(prompt, [], edits={RESID: lambda x: x * (torch.arange(9) < 2)[:, None]})[0]
    assert torch.equal(logits, replaced)


def test_what_is_wanted_and_what_alters() -> None:
    assert not OFF.wants("a") and not OFF.alters("a") and OFF("a", torch.ones(1)) is not None
    reads, edits = Taps(["a"]), Taps(edits={"b": lambda x: x})
    assert reads.wants("z", "a") and not reads.alters("a")
    assert edits.wants("b") and edits.alters("b") and not edits.wants("a")
    assert Taps(["a"], grad=True).alters("a"), "what is differentiated must be used in its own right"
    both = Joined(reads, edits)
    assert both.wants("a") and both.wants("b") and both.alters("b") and not both.alters("a")
    assert both.names == {"a", "b"}
    assert Joined(reads, Off()).names == {"a"}


def test_outer_taps_act_first() -> None:
    inner = Taps(["x"], {"x": lambda x: x * 10})
    outer = Taps(["x"], {"x": lambda x: x + 1})
    assert Joined(outer, inner)("x", torch.tensor(1.0)).item() == 20
    assert (outer.seen["x"].item(), inner.seen["x"].item()) == (2, 20)


def test_keep_decides_how_a_read_is_stored() -> None:
    taps = Taps(["x"], keep=lambda site, x: x[:1].clone() if site == "x" else x)
    whole = taps("x", torch.arange(3.0))
    assert len(whole) == 3 and taps.seen["x"].tolist() == [0.0]


def test_halt_comes_with_the_last_read() -> None:
    taps = Taps(["a", "b"], halt=True)
    taps("a", torch.ones(1))
    taps("c", torch.ones(1))
    with pytest.raises(Halt):
        taps("b", torch.ones(1))
    Taps([], {"a": lambda x: x}, halt=True)("a", torch.ones(1))  # nothing to wait for: runs on


# ------------------------------------------------------------------ gradients


def test_the_graph_starts_at_the_first_read() -> None:
    """A read is a leaf: nothing before it was recorded, and what comes after hangs on it."""
    m, names = model(), ["blocks.1.attn.hook_q", "blocks.2.hook_resid_pre"]
    logits, cache = m.run_with_cache(ids(), names, grad=True)
    first, second = (cache[name] for name in names)
    assert first.is_leaf and first.requires_grad
    assert not second.is_leaf
    gradient = torch.autograd.grad(logits[:, -1, 5].sum(), [first, second])
    assert all(g.abs().max() > 0 for g in gradient)


def test_nothing_is_differentiated_where_nobody_asks() -> None:
    m = model()
    assert not m(ids()).requires_grad
    logits, cache = m.run_with_cache(ids(), "resid_pre")
    assert not logits.requires_grad and not any(x.requires_grad for x in cache.values())
    assert not any(p.requires_grad for p in m.parameters())


@pytest.mark.parametrize("name", ["hook_embed", "blocks.2.attn.hook_z", "blocks.3.mlp.hook_post", RESID])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    m, prompt = model(), ids(1, 5)
    logits, cache = m.run_with_cache(prompt, name, grad=True)
    (gradient,) = torch.autograd.grad(logits[0, -1, 7], [cache[name]])
    step = torch.randn(gradient.shape, dtype=gradient.dtype) * 1e-6
    up, down = (
        m.run_with_cache(prompt, [], edits={name: lambda x, s=s: x + s * step})[0][0, -1, 7] for s in (1, -1)
    )
    assert torch.isclose((up - down) / 2, (gradient * step).sum(), rtol=1e-5)


def test_gradient_hooks_see_and_replace_gradients() -> None:
    m, prompt, seen = model(), ids(), {}
    early, late = "blocks.0.hook_resid_post", "blocks.2.hook_resid_post"

    def note(name: str):
        return lambda gradient: seen.__setitem__(name, gradient.clone())

    taps = Taps(gradients={early: note(early), late: [note(late), torch.zeros_like]})
    m(prompt, taps=taps)[:, -1, 3].sum().backward()
    assert seen[late].abs().max() > 0
    assert seen[early].abs().max() == 0, "the gradient was replaced by zeros further up"
    plain = Taps(gradients={early: note("plain")})
    m(prompt, taps=plain)[:, -1, 3].sum().backward()
    assert seen["plain"].abs().max() > 0


def test_an_edit_may_carry_parameters_of_its_own() -> None:
    """Whatever an edit puts in is differentiated, without anything being read."""
    m, vector = model(), torch.zeros(16, dtype=torch.float64, requires_grad=True)
    logits = m(ids(), taps=Taps(edits={RESID: lambda x: x + vector}))
    logits[:, -1, 3].sum().backward()
    assert vector.grad is not None and vector.grad.abs().max() > 0


@pytest.mark.parametrize("options", [{"pos_slice": -1}, {"remove_batch_dim": True}])
def test_gradients_at_parts_of_sites_are_refused(options: dict) -> None:
    """A slice of what was read is not what the run went on with."""
    with pytest.raises(ValueError, match="grad=True keeps whole activations"):
        model().run_with_cache(ids(1), RESID, grad=True, **options)


# ------------------------------------------------------------------ names that cannot fire

MISSING = [
    ("blocks.1.attn.hook_zz", "'blocks.1.attn.hook_zz' is not a site of this model; .*blocks.1.attn.hook_z'"),
    ("blocks.9.hook_resid_pre", "'blocks.9.hook_resid_pre' is not a site of this model"),
    ("patern", "is not a site of this model; did you mean .*hook_pattern"),
    ("hook_pos_embed", "is not a site of this model"),  # rotary: there is none
    ("blocks.1.ln1_post.hook_scale", "is not a site of this model"),
]


@pytest.mark.parametrize(("name", "message"), MISSING)
def test_unknown_sites_raise_before_anything_runs(name: str, message: str, monkeypatch) -> None:
    m = model()
    monkeypatch.setattr(type(m.embed), "forward", lambda *a, **k: pytest.fail("the model ran"))
    requests = [
        lambda: m.run_with_cache(ids(), name),
        lambda: m.run_with_cache(ids(), [RESID, name]),
        lambda: m.run_with_cache(ids(), [], edits={name: torch.zeros_like}),
        lambda: m.activations(ids(), name),
        lambda: m.run_with_hooks(ids(), [(name, lambda x, hook: x)]),
        lambda: m.run_with_hooks(ids(), bwd_hooks=[(name, lambda x, hook: x)]),
        lambda: m.hooks([(name, lambda x, hook: x)]).__enter__(),
        lambda: m(ids(), taps=Taps([name])),
        lambda: m.generate(ids(), edits={name: torch.zeros_like}),
    ]
    for request in requests:
        with pytest.raises(ValueError, match=message):
            request()


def test_taps_take_full_names() -> None:
    with pytest.raises(ValueError, match="'pattern' is a shorthand"):
        model()(ids(), taps=Taps(["pattern"]))


OUT_OF_REACH = [
    ("blocks.1.hook_resid_pre", {"start_at_layer": 2}),
    ("blocks.2.hook_resid_pre", {"stop_at_layer": 2}),
    ("blocks.3.hook_resid_pre", {"stop_at_layer": -1}),
    ("hook_embed", {"start_at_layer": 1}),
    ("hook_embed", {"start_at_layer": 0}),  # a residual stream is given: nothing is embedded
    ("ln_final.hook_scale", {"stop_at_layer": 2}),
    ("hook_logits", {"stop_at_layer": N_LAYERS}),  # the residual stream is the result: nothing is unembedded
]


@pytest.mark.parametrize(("name", "options"), OUT_OF_REACH)
def test_names_outside_the_layers_run_raise(name: str, options: dict) -> None:
    m = model()
    given = torch.zeros(1, 4, 16, dtype=m.dtype) if "start_at_layer" in options else ids()
    for ask in ({"names_filter": [name]}, {"names_filter": [], "edits": {name: torch.zeros_like}}):
        with pytest.raises(ValueError, match=f"{name!r} cannot fire in a run"):
            m.run_with_cache(given, **ask, **options)
    cache = m.run_with_cache(given, **options)[1]  # whoever asks for everything gets what there is
    assert len(cache) > 0 and name not in dict(cache)


def test_a_shorthand_takes_the_layers_that_run() -> None:
    m = model()
    cache = m.run_with_cache(ids(), "pattern", stop_at_layer=2)[1]
    assert list(cache) == ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    assert list(m.run_with_cache(ids(), lambda n: n.endswith("hook_z"), stop_at_layer=1)[1]) == [
        "blocks.0.attn.hook_z"
    ]


# ------------------------------------------------------------------ ways to name a site


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("blocks.3.attn.hook_k", ["blocks.3.attn.hook_k"]),
        ("k3", ["blocks.3.attn.hook_k"]),
        (("k", 3), ["blocks.3.attn.hook_k"]),
        ("key3", ["blocks.3.attn.hook_k"]),
        (("attn", 1), ["blocks.1.attn.hook_pattern"]),
        ("attn_scores2", ["blocks.2.attn.hook_attn_scores"]),
        (("scale", 3, "ln1"), ["blocks.3.ln1.hook_scale"]),
        (("normalized", 0, "ln2"), ["blocks.0.ln2.hook_normalized"]),
        ("scale1ln2", ["blocks.1.ln2.hook_scale"]),
        ("resid_pre", [f"blocks.{l}.hook_resid_pre" for l in range(N_LAYERS)]),
        ("hook_resid_pre", [f"blocks.{l}.hook_resid_pre" for l in range(N_LAYERS)]),
        ("attn.hook_v", [f"blocks.{l}.attn.hook_v" for l in range(N_LAYERS)]),
        ("ln2.hook_scale", [f"blocks.{l}.ln2.hook_scale" for l in range(N_LAYERS)]),
        ("mlp_post", [f"blocks.{l}.mlp.hook_post" for l in range(N_LAYERS)]),
        ("pre_linear", [f"blocks.{l}.mlp.hook_pre_linear" for l in range(N_LAYERS)]),
        (["embed", ("q", 1), "logits"], ["hook_embed", "blocks.1.attn.hook_q", "hook_logits"]),
        ({"q1", "k0"}, ["blocks.0.attn.hook_k", "blocks.1.attn.hook_q"]),
        ((("v", 2), "z2"), ["blocks.2.attn.hook_v", "blocks.2.attn.hook_z"]),
        ([], []),
    ],
)
def test_shorthands(given, full: list[str]) -> None:
    cache = model().run_with_cache(ids(), given)[1]
    assert list(cache) == full
    if len(full) == 1:
        assert cache[given] is cache[full[0]]


def test_filters_choose_among_ordinary_sites() -> None:
    m = model()
    everything = m.run_with_cache(ids())[1]
    ordinary = [name for name, site in m.sites.items() if not site.extra]
    assert list(everything) == ordinary
    assert not any("hook_result" in n or "hook_q_input" in n for n in ordinary)
    chosen = m.run_with_cache(ids(), lambda name: ".0." in name)[1]
    assert list(chosen) == [n for n in ordinary if ".0." in n]
    asked = m.run_with_cache(ids(), ["result", "q_input", "mlp_in"])[1]
    assert len(asked) == 3 * N_LAYERS


def test_a_filter_that_is_no_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="a names filter is"):
        model().run_with_cache(ids(), 5)


def test_positions_kept() -> None:
    m, prompt = model(), ids()
    names = ["resid_post", "pattern", "z", "attn_scores", "scale0ln1", "logits"]
    whole = m.run_with_cache(prompt, names)[1]
    for pos_slice, index in ((2, slice(2, 3)), (-1, slice(-1, None)), (slice(1, 4), slice(1, 4))):
        logits, part = m.run_with_cache(prompt, names, pos_slice=pos_slice)
        assert logits.shape == (3, 9, D_VOCAB), "the run itself is whole"
        for name, x in part.items():
            axis = m.sites[name].shape.split().index("pos")
            assert torch.equal(x, whole[name][(slice(None),) * axis + (index,)]), name
    assert m.run_with_cache(prompt, "pattern0", pos_slice=-1)[1]["pattern", 0].shape == (3, 4, 1, 9)


def test_batch_axis_removed() -> None:
    m = model()
    with_batch = m.run_with_cache(ids(1), ["z", "pattern"])[1]
    without = m.run_with_cache(ids(1), ["z", "pattern"], remove_batch_dim=True)[1]
    assert not without.batched
    for name, x in without.items():
        assert torch.equal(x, with_batch[name][0])
    assert without.remove_batch_dim() is without
    with pytest.raises(ValueError, match="only be removed from a batch of 1"):
        m.run_with_cache(ids(2), "z", remove_batch_dim=True)


def test_the_cache_says_what_it_lacks() -> None:
    cache = model().run_with_cache(ids(), ["z", "resid_pre0"])[1]
    assert "z2" in cache and ("z", 2) in cache and "pattern" not in cache and "nonsense" not in cache
    assert cache.stack("z").shape == (N_LAYERS, 3, 9, 4, 4)
    assert cache["resid_pre"] is cache["blocks.0.hook_resid_pre"], "a shorthand that means one thing only"
    with pytest.raises(KeyError, match=r"'z' stands for 4 sites .*give a layer"):
        cache["z"]
    with pytest.raises(KeyError, match=r"'blocks\.1\.attn\.hook_pattern' was not read in this run"):
        cache["pattern", 1]
    with pytest.raises(KeyError, match="was not read in this run"):
        cache.stack("pattern")
    with pytest.raises(ValueError, match="is not a site of this model"):
        cache["nonsense", 1]
    assert "MiB" in repr(cache) and len(cache.to("cpu")) == len(cache)
