"""Models run wherever they are: on a device without values, every tensor of a run is on that device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_family_runs_on_another_device() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LENS_SHAPES": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.contracts.fake_device"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "models on a fake device" in done.stdout
