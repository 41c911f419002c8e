"""Settings: from YAML and flags, refused by name, and back to YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.config import Config


def test_back_and_forth(tmp_path: Path) -> None:
    made = Config(
        "truth", {"n": 100}, site="mlp_out", layers="0-3,7", C=[0.1, 1.0], groups=["country"], floors=[],
        answers={"words": {"true": " yes", "false": " no"}, "template": "{text}?"}, positions=-2, mdl=True,
    )  # fmt: skip
    (tmp_path / "c.yaml").write_text(made.to_yaml())
    assert Config.read(tmp_path / "c.yaml") == made
    assert Config.read(tmp_path / "c.yaml", seed=3, C=0.5) == made.with_(seed=3, C=0.5)
    assert Config.of({"dataset": "truth"}) == Config("truth")


MISTAKES = {
    "'estimater' is not a known setting; did you mean 'estimator'": "dataset: x\nestimater: ridge",
    "no dataset is named": "seed: 1",
    r"the setting cv \(how many folds\) is 1; it must be a whole number from 2 on": "dataset: x\ncv: 1",
    "the setting seed is True": "dataset: x\nseed: true",
    "the setting floors is 'majority'; it must be a list of names": "dataset: x\nfloors: majority",
    "the setting C is 'much'": "dataset: x\nC: much",
    "the setting C is \\[\\]": "dataset: x\nC: []",
    "the setting mdl is 1; it must be true or false": "dataset: x\nmdl: 1",
    "the setting options is \\[1\\]; it must be names with values": "dataset: x\noptions: [1]",
    "the setting answers needs words": "dataset: x\nanswers: {template: '{text}'}",
    "'word' is not a setting of answers; did you mean 'words'": "dataset: x\nanswers: {word: {}}",
    "line 2 is not YAML": "dataset: x\n  cv: - 3\n: }",
    "holds no settings": "- a\n- b",
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(MISTAKES[message])
    with pytest.raises(ValueError, match=message) as caught:
        Config.read(file)
    assert "c.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Config.read(tmp_path / "absent.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        Config.read(tmp_path / "c.yaml")
