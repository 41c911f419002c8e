"""What all tests share: an offline, seeded, shape-checked process, three models and a browser to test with.

Under pytest, annotations of `lens`, `probes` and `circuits` are checked at every call: shapes by jaxtyping, types by
beartype. `LENS_SHAPES=0` switches that off.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads wait for each other more than they work
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if os.environ.get("LENS_SHAPES", "1") != "0":
    import jaxtyping

    jaxtyping.install_import_hook(["lens", "probes", "circuits"], "beartype.beartype")

import pytest
import torch

if TYPE_CHECKING:
    from lens.model import Transformer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


def unavailable(what: str, required_by: str) -> None:
    """Skip, or fail where the environment says that the tests must run."""
    if os.environ.get(required_by, "") not in ("", "0"):
        pytest.fail(f"{what}, and {required_by} is set")
    pytest.skip(what)


@pytest.fixture(scope="session")
def smollm2() -> Transformer:
    """SmolLM2-135M-Instruct; tests that use it are marked `model`."""
    import lens

    try:
        return lens.load("smollm2")
    except (OSError, ValueError) as error:
        unavailable(f"SmolLM2 is not here: {error}", "REQUIRE_MODEL")
        raise


@pytest.fixture(scope="session")
def minilm() -> Transformer:
    """all-MiniLM-L6-v2; tests that use it are marked `model`."""
    import lens

    try:
        return lens.load("minilm")
    except (OSError, ValueError) as error:
        unavailable(f"MiniLM is not here: {error}", "REQUIRE_MODEL")
        raise


@pytest.fixture(scope="session")
def induction() -> Transformer:
    """The two-layer attention-only model that the project ships."""
    import lens

    return lens.load("induction-2l")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; tests that use it are marked `browser`."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        unavailable("no Chromium found", "REQUIRE_BROWSER")
    return str(found)
