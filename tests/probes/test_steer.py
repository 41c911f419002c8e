"""Steering: the curve against runs with hooks, its units, its monotone range, and bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lens.model import Transformer
from probes.measures import LogitDifference, ProbeScore
from probes.monotone import Monotone, monotone_range, spearman
from probes.probe import Probe
from probes.steer import generate_steered, steer
from tests.probes.conftest import WORDS

TEXTS = ["bar del gin", "kop lut", "mar nel fop bin", "lar", "gut gar nin del bop"]
SITE = "blocks.1.hook_resid_post"
DOSES = (-2.0, 0.0, 1.0, 4.0)


def direction(seed: int = 0) -> Tensor:
    return torch.randn(16, generator=torch.Generator().manual_seed(seed))


def difference(model: Transformer) -> LogitDifference:
    return LogitDifference.of(model, ["bar", "del"], "gin")


def naive(model: Transformer, text: str, site: str, step: Tensor, start: object) -> tuple[Tensor, Tensor]:
    """Logits [p, v] and the last stream of one text alone, steered by a hook."""
    n = len(text.split()) + 1
    first = {"all": 0, "last": n - 1}.get(start, start) if isinstance(start, str) else start

    def hook(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        x[:, first:] += step
        return x

    with model.hooks([(site, hook)]):
        logits, cache = model.run_with_cache(text, ["blocks.2.hook_resid_post"])
    return logits[0], cache["blocks.2.hook_resid_post"][0]


@pytest.mark.parametrize("start", ["all", "last", 1, -1])
@pytest.mark.parametrize(
    "site", [SITE, "blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_post"]
)
def test_the_curve_is_that_of_hooked_runs(tiny: Transformer, site: str, start: object) -> None:
    u = direction() / direction().norm()
    found = steer(tiny, TEXTS, direction(), site, DOSES, difference(tiny), start=start, batch_size=3)
    assert found.doses == DOSES
    _, cache = tiny.run_with_cache(TEXTS, [site])
    last = torch.tensor([len(text.split()) for text in TEXTS])
    sd = float((cache[site][torch.arange(5), last] @ u).std())
    assert found.sd == pytest.approx(sd, rel=1e-5)
    ids = [[tiny.to_single_token(w) for w in text.split()] for text in TEXTS]
    plus, minus = [tiny.to_single_token(w) for w in ("bar", "del")], tiny.to_single_token("gin")
    for m, dose in enumerate(DOSES):
        total, count = 0.0, 0
        for i, text in enumerate(TEXTS):
            logits, _ = naive(tiny, text, site, dose * sd * u, start)
            value = logits[-1, plus].logsumexp(0) - logits[-1, minus]
            assert float(found.values[m, i]) == pytest.approx(float(value), abs=2e-4)
            total -= float(logits[:-1].log_softmax(-1)[torch.arange(len(ids[i])), ids[i]].sum())
            count += len(ids[i])
        if start == "last":
            assert found.loss is None
        else:
            assert found.loss is not None
            assert float(found.loss[m]) == pytest.approx(total / count, abs=1e-4)
    assert (found.interval[0] <= found.mean + 1e-9).all()
    assert (found.mean <= found.interval[1] + 1e-9).all()


def test_a_probe_downstream(tiny: Transformer) -> None:
    """A probe that reads the site itself along the direction rises by sd |coef| per dose, exactly."""
    coef = direction().double()[None]
    probe = Probe.of(coef, torch.zeros(1).double(), SITE, ("no", "yes"))
    found = steer(tiny, TEXTS, probe, SITE, [-1, 0, 1, 2], probe)
    rise = found.mean.diff()
    torch.testing.assert_close(
        rise, torch.full((3,), found.sd * float(coef.norm())).double(), rtol=1e-4, atol=1e-4
    )
    assert found.monotone == Monotone(-1.0, 2.0, 1)
    assert found.spearman == pytest.approx(1)
    against = steer(tiny, TEXTS, probe, SITE, [-1, 0, 1, 2], ProbeScore(probe, "no"))
    assert against.monotone == Monotone(-1.0, 2.0, -1)
    later = Probe.of(coef, torch.zeros(1).double(), "blocks.2.hook_resid_post", ("no", "yes"))
    values = steer(tiny, TEXTS, probe, SITE, [0, 3], later).values
    u = coef[0] / coef.norm()
    _, stream = naive(tiny, TEXTS[0], SITE, (3 * found.sd * u).float(), "all")
    assert float(values[1, 0]) == pytest.approx(float(stream[-1].double() @ coef[0]), abs=1e-4)


def test_loss_on_other_texts(tiny: Transformer) -> None:
    others = [" ".join(WORDS[i : i + 6]) for i in range(0, 24, 6)]
    found = steer(tiny, TEXTS, direction(), SITE, [0, 3], difference(tiny), start="last", loss_on=others)
    everywhere = steer(tiny, others, direction(), SITE, [0, 3], difference(tiny), sd=found.sd)
    assert found.loss is not None and everywhere.loss is not None
    torch.testing.assert_close(found.loss, everywhere.loss)
    assert found.loss_interval is not None
    assert (found.loss_interval[0] <= found.loss).all()
    assert (found.loss <= found.loss_interval[1]).all()
    assert list(found.table.columns) == [
        "dose",
        "mean",
        "low",
        "high",
        "loss",
        "loss_low",
        "loss_high",
        "monotone",
    ]
    assert f"{found.sd:.4g}" in found.unit


def test_any_function_of_the_logits(tiny: Transformer) -> None:
    found = steer(tiny, TEXTS, direction(), SITE, [0, 1], lambda logits: logits[:, 3] - logits[:, 5])
    expected = torch.stack([naive(tiny, text, SITE, torch.zeros(16), "all")[0][-1] for text in TEXTS])
    torch.testing.assert_close(found.values[0].float(), expected[:, 3] - expected[:, 5], rtol=1e-4, atol=1e-4)


def test_continuations_are_steered(tiny: Transformer) -> None:
    """Greedy, token by token without a cache, every position steered."""
    step = 3 * direction() / direction().norm()
    for start in ("all", "last", 1):
        said = generate_steered(tiny, TEXTS[:3], direction(), SITE, 3.0, start=start, max_new_tokens=4)
        for text, told in zip(TEXTS[:3], said, strict=True):
            first = (
                {"all": 0, "last": len(text.split())}.get(start, start) if isinstance(start, str) else start
            )
            expected = text
            for _ in range(4):
                logits, _ = naive(tiny, expected, SITE, step, first)
                expected += " " + tiny.to_string([int(logits[-1].argmax())]).strip()
            assert told.split() == expected.split()
    plain = tiny.generate(TEXTS[0], 4)
    assert generate_steered(tiny, TEXTS[0], direction(), SITE, 0.0, max_new_tokens=4) == plain
    assert generate_steered(tiny, TEXTS[0], direction(), SITE, 1.0, sd=30.0, max_new_tokens=4) != plain


# ------------------------------------------------------------------ the monotone range


def noisy(curve: list, noise: float) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.tensor(curve).double() + noise * torch.randn(
        500, len(curve), generator=g, dtype=torch.float64
    )


@pytest.mark.parametrize(
    ("curve", "noise", "expected"),
    [
        ([0, 1, 2, 3, 4], 0.01, Monotone(0.0, 4.0, 1)),
        ([4, 3, 2, 1, 0], 0.01, Monotone(0.0, 4.0, -1)),
        ([0, 1, 0.99, 3, 4], 0.1, Monotone(0.0, 4.0, 1)),  # a dent within noise
        ([0, 1, 0.5, 3, 4], 0.01, Monotone(2.0, 4.0, 1)),  # a real one
        ([5, 0, 1, 2, 1], 0.01, Monotone(1.0, 3.0, 1)),
        ([0, 1, 2, 1.98, 1.96], 0.5, Monotone(0.0, 4.0, 1)),  # a slow decline that is noise
        (
            [0, 1, 2, 1.7, 1.4],
            0.2,
            Monotone(0.0, 3.0, 1),
        ),  # neighbours agree within noise, the sum of two steps does not
        ([1, 1, 1, 1, 1], 0.1, None),
    ],
)
def test_monotone_range(curve: list, noise: float, expected: Monotone | None) -> None:
    assert monotone_range([0, 1, 2, 3, 4], noisy(curve, noise)) == expected


def test_spearman() -> None:
    from scipy.stats import spearmanr

    values = torch.tensor([3.0, 1, 4, 1, 5, 9])
    assert spearman(range(6), values) == pytest.approx(spearmanr(range(6), values.numpy()).statistic)
    assert spearman(range(3), torch.ones(3)) == 0


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doses": [1.0]}, "two different, finite doses"),
        ({"doses": [1.0, float("nan")]}, "two different, finite doses"),
        ({"site": "resid_post"}, "stands for 3 sites"),
        ({"site": "blocks.1.attn.hook_pattern"}, "cannot be edited by a vector"),
        ({"site": "blocks.1.attn.hook_z"}, r"steering takes a site \[batch pos d_model\]"),
        ({"site": "blocks.1.hook_resid_pots"}, "did you mean 'blocks.1.hook_resid_post'"),
        ({"direction": torch.zeros(16)}, "zero or not finite"),
        ({"start": "end"}, "start is 'end'; it is 'all', 'last' or a position"),
        ({"start": 4}, "position 4 is past the end of prompt 0"),
        ({"inputs": "bar del"}, "one prompt has no standard deviation; give `sd`"),
        ({"inputs": ["bar del", "bar del"]}, "do not vary along the direction"),
        ({"sd": 0.0}, "one dose is 0.0; it must be above 0"),
        ({"groups": ["a"]}, "5 prompts and 1 groups"),
        ({"measure": 3}, "a measure is a probe, a LogitDifference or a function of the logits, not int"),
        ({"measure": lambda logits: logits}, r"one number per prompt, \[5\]; not \[5, 41\]"),
        ({"measure": "blocks.0.hook_resid_post"}, "'blocks.0.hook_resid_post' is not downstream"),
        ({"loss_on": ["bar"], "batch_size": 0}, "batch_size is 0"),
    ],
)  # fmt: skip
def test_bad_input(tiny: Transformer, change: dict, message: str) -> None:
    options = {
        "inputs": TEXTS,
        "direction": direction(),
        "site": SITE,
        "doses": [0.0, 1.0],
        "measure": difference(tiny),
    }
    options |= change
    if isinstance(options["measure"], str):
        weights = torch.ones(1, 16).double()
        options["measure"] = Probe.of(weights, torch.zeros(1).double(), options["measure"], ("a", "b"))
    with pytest.raises(ValueError, match=message) as error:
        steer(tiny, **options)
    assert "\n" not in str(error.value)


def test_bad_measures(tiny: Transformer) -> None:
    with pytest.raises(ValueError, match="'bar' stands on both sides"):
        LogitDifference.of(tiny, ["bar", "del"], ["gin", "bar"])
    with pytest.raises(ValueError, match="a word on each side"):
        LogitDifference.of(tiny, [], "gin")
    with pytest.raises(ValueError, match="bargin"):
        LogitDifference.of(tiny, "bargin", "gin")
    probe = Probe.of(torch.ones(3, 16).double(), torch.zeros(3).double(), SITE, ("a", "b", "cat"))
    with pytest.raises(ValueError, match="did you mean 'cat'"):
        ProbeScore(probe, "cut")
    with pytest.raises(ValueError, match="several scores; choose from a, b, cat"):
        ProbeScore(probe)


def test_cancelling(tiny: Transformer) -> None:
    from lens.progress import Cancelled

    def stop(done: int, total: int, label: str) -> None:
        if label == "steering" and done:
            raise Cancelled

    with pytest.raises(Cancelled):
        steer(tiny, TEXTS, direction(), SITE, [0.0, 1.0], difference(tiny), batch_size=2, progress=stop)
