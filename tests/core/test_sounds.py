"""Encoder–decoders that read sounds: mel frames, the two convolutions, generation, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lens
from lens.description import in_words, n_parameters
from lens.family import find
from lens.inputs import ModelInputs
from lens.model import Transformer
from lens.tokens import Tokenizer
from tests import zoo
from tests.parity import ours, prompts

N_MELS, N_FRAMES, D = 7, 22, 32


def model_of(**about: Any) -> Transformer:
    model = ours("whisper", "plain", torch.float64)
    return Transformer.from_state(model.cfg, model.state_dict(), **about) if about else model


def words() -> Tokenizer:
    return Tokenizer.from_words([f"w{i}" for i in range(zoo.D_VOCAB)], bos="w1", eos="w2", pad="w0")


def mel(n: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, N_MELS, N_FRAMES, generator=torch.Generator().manual_seed(3)).to(dtype)


def waveform(n: int = 2000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32) * 0.1


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------ sounds in


def hertz_to_mel(f: float) -> float:
    """Slaney's scale: linear below 1 kHz, then 27 steps for every factor of 6.4."""
    return 3 * f / 200 if f < 1000 else 15 + 27 * math.log(f / 1000) / math.log(6.4)


def mel_to_hertz(m: float) -> float:
    return 200 * m / 3 if m < 15 else 1000 * math.exp((m - 15) * math.log(6.4) / 27)


def naive_log_mel(x: np.ndarray, n_mels: int, n_frames: int) -> np.ndarray:
    """Windows of 400 samples every 160, their power in triangles of frequencies, decibels within 80 of the top."""
    x = np.pad(np.pad(x.astype(np.float64), (0, n_frames * 160 - len(x))), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.array([np.abs(np.fft.rfft(window * x[160 * t : 160 * t + 400])) ** 2 for t in range(n_frames)])
    corners = [mel_to_hertz(m) for m in np.linspace(0, hertz_to_mel(8000), n_mels + 2)]
    frequencies = np.arange(201) * 40
    bands = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        up, down = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
        bands.append(np.maximum(0, np.minimum(up, down)) * 2 / (high - low))
    logs = np.log10(np.maximum(power @ np.array(bands).T, 1e-10)).T
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


def test_frames_are_those_of_the_definition() -> None:
    model, x = model_of(), waveform()
    made = model.to_inputs([x, waveform(700, 1)]).source
    assert isinstance(made, ModelInputs) and made.mel is not None
    assert made.mel.shape == (2, N_MELS, N_FRAMES)
    assert np.allclose(made.mel[0], naive_log_mel(x, N_MELS, N_FRAMES), atol=1e-4)
    assert np.allclose(made.mel[1], naive_log_mel(waveform(700, 1), N_MELS, N_FRAMES), atol=1e-4)


def test_the_forms_of_a_sound() -> None:
    """One waveform, several, and a batch, of numpy or torch; or their frames."""
    model, x = model_of(), waveform()
    logits = model(x)
    assert logits.shape == (1, 1, zoo.D_VOCAB)
    source = model.to_inputs(x).source
    assert isinstance(source, ModelInputs) and source.mel is not None
    for same in (torch.tensor(x), [x], x[None], x.astype(np.float64), source.mel, source.mel.numpy()):
        assert torch.equal(model(same), logits)
    assert torch.equal(model(ModelInputs(source=source)), logits)
    two = model([x, torch.tensor(waveform(900, 1))])
    assert close(two[:1], logits) and close(two[1:], model(waveform(900, 1)))


def test_the_checkpoints_own_settings_count(tmp_path: Path) -> None:
    settings = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": N_MELS, "n_fft": 256}
    settings |= {"hop_length": 80, "chunk_length": 30, "mel_filters": [[0.0]]}
    model, x = model_of(preprocessing=settings), waveform(1700)
    made, usual = model.to_inputs(x).source, model_of().to_inputs(x).source
    assert isinstance(made, ModelInputs) and made.mel is not None and made.mel.shape == (1, N_MELS, N_FRAMES)
    assert isinstance(usual, ModelInputs) and usual.mel is not None and not close(made.mel, usual.mel)
    with pytest.raises(
        ValueError, match=r"a waveform has 2000 samples \(0.125 s\) and whisper reads at most 1760"
    ):
        model(waveform(2000))
    again = lens.load(lens.save(model, tmp_path / "saved"), dtype="float64")
    assert again.preprocessing == settings and close(again(x), model(x))


def test_convolutions_by_definition() -> None:
    model, frames = model_of(), mel(2)
    assert model.encoder is not None and model.encoder.embed.mel is not None
    cache = model.run_with_cache(frames)[1]
    one, two = model.encoder.embed.mel.conv1, model.encoder.embed.mel.conv2
    padded = torch.nn.functional.pad(frames, (1, 1))
    first = torch.stack(
        [torch.einsum("bmk,dmk->bd", padded[..., t : t + 3], one.weight) for t in range(22)], 1
    )
    assert close(cache["encoder.hook_conv1_pre"], first + one.bias)
    after = torch.nn.functional.gelu(first + one.bias)
    assert close(cache["encoder.hook_conv1_post"], after)
    padded = torch.nn.functional.pad(after, (0, 0, 1, 1))
    second = [torch.einsum("bkm,dmk->bd", padded[:, 2 * p : 2 * p + 3], two.weight) for p in range(11)]
    assert close(cache["encoder.hook_conv2_pre"], torch.stack(second, 1) + two.bias)
    assert close(cache["encoder.hook_embed"], torch.nn.functional.gelu(cache["encoder.hook_conv2_pre"]))
    stream = cache["encoder.hook_embed"] + model.encoder.embed.positions.weight
    assert close(cache["encoder.0.hook_resid_pre"], stream)


# ------------------------------------------------------------------ words out


def test_generation_is_hugging_faces() -> None:
    hf, model = zoo.hugging_face("whisper", "plain"), ours("whisper", "plain")
    for start in ([1], [1, 9, 12]):
        ids = torch.tensor([start] * 3)
        expected = hf.generate(
            mel(dtype=torch.float32), decoder_input_ids=ids, max_new_tokens=6, do_sample=False, num_beams=1,
            suppress_tokens=[4, 5], begin_suppress_tokens=None,
        )  # fmt: skip
        expected = expected if expected.shape[1] > 6 else torch.cat([ids, expected], 1)
        given = ModelInputs(ids=ids, source=ModelInputs(mel=mel(dtype=torch.float32)))
        found = model.generate(given, 6, suppress=[4, 5])
        for row, theirs in zip(found, expected, strict=True):
            new = theirs[len(start) :]
            ends = (new == hf.config.eos_token_id).nonzero()
            n = int(ends[0]) if len(ends) else min(len(new), 6)
            assert row[len(start) :][:n].tolist() == new[:n].tolist()


def test_forced_tokens_follow_the_first() -> None:
    hf = zoo.hugging_face("whisper", "plain", torch.float64)
    forced = {"forced_decoder_ids": [[1, 9], [2, 12], [4, 5]]}
    model = Transformer.from_state(*lens.family.read({**hf.config.to_dict(), **forced}, hf.state_dict()))
    assert model.cfg.forced == (9, 12), "up to the first place that is left open"
    assert model.to_inputs(mel()).ids.tolist() == [[1, 9, 12]] * 3  # type: ignore[union-attr]
    given = ModelInputs(ids=torch.tensor([[1, 9, 12]] * 3), source=ModelInputs(mel=mel()))
    assert close(model(mel()), model_of()(given))
    assert model.generate(mel(), 4).tolist() == model_of().generate(given, 4).tolist()
    targets = model.to_inputs(mel(), targets=torch.tensor([[9, 12, 20, 2]] * 3))
    assert targets.ids.tolist() == [[1, 9, 12, 20]] * 3  # type: ignore[union-attr]


def test_what_is_said_of_a_sound_is_text_where_there_are_words() -> None:
    x = waveform()
    ids = model_of().generate(x, 4)
    assert isinstance(ids, Tensor) and ids.shape == (1, 5) and ids[0, 0] == 1
    model = model_of(tokenizer=words())
    said = model.generate(x, 4)
    assert 2 not in ids and said == words().decode(ids[0, 1:])
    assert model.generate([x, x], 4) == [said, said] == model.generate(torch.tensor(x)[None].repeat(2, 1), 4)
    given = model.to_inputs(x)
    assert torch.equal(model.generate(given, 4, stop_at_eos=False), ids)
    other = model.generate(given, 6, suppress=ids[0, 1:].tolist())[0, 1:]
    assert not set(other.tolist()) & set(ids[0, 1:].tolist())


def test_teacher_forcing() -> None:
    model, x = model_of(tokenizer=words()), waveform()
    given = model.to_inputs([x, x], targets=["w9 w10 w11", "w12"])
    assert given.ids is not None and given.ids.tolist() == [[1, 9, 10], [1, 12, 0]], "moved by one"
    assert given.mask is not None and given.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    begun = model.to_inputs([x, x], targets=["w1 w9 w10", "w1 w12"])
    assert begun.ids is not None and begun.ids.tolist() == [[1, 9], [1, 12]], "tokenizers may begin with it"
    assert close(model(given)[:, :2], model(begun))
    assert torch.equal(model.to_inputs(mel(1), targets=torch.tensor([[9, 10]])).ids, torch.tensor([[1, 9]]))
    with pytest.raises(ValueError, match="there are 1 sources and 2 targets"):
        model.to_inputs(x, targets=["w9", "w10"])


SPECIAL = [
    f"<|{name}|>"
    for name in (
        "endoftext", "startoftranscript", "en", "translate", "transcribe", "startoflm", "startofprev", "nospeech",
        "notimestamps",
    )
]  # fmt: skip


def test_a_folder_with_tokenizer_and_extractor(tmp_path: Path) -> None:
    """Its tokenizer begins texts with the start, a language and a task, which are targets like the words."""
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    spelled = {token: i for i, token in enumerate([*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = WhisperTokenizer(
        vocab=spelled, merges=[], language="en", task="transcribe", additional_special_tokens=SPECIAL[1:]
    )
    extractor, x = WhisperFeatureExtractor(feature_size=N_MELS), waveform()
    hf = zoo.hugging_face("whisper", "plain")
    for part in (hf, tokenizer, extractor):
        part.save_pretrained(tmp_path)
    model = lens.load(tmp_path)
    given = model.to_inputs(x, targets="cat")
    assert given.ids is not None and given.ids.tolist() == [tokenizer("cat").input_ids[:-1]]
    assert model.to_str_tokens(given.ids)[:4] == [SPECIAL[i] for i in (1, 2, 4, 8)]
    features = extractor(x, sampling_rate=16_000, max_length=N_FRAMES * 160, return_tensors="pt")
    expected = hf(**features, decoder_input_ids=given.ids).logits
    assert torch.allclose(model(given), expected, atol=1e-5 * float(expected.abs().max()))
    assert isinstance(model.generate(x, 3), str)


def test_half_precision() -> None:
    model = Transformer.from_state(model_of().cfg, model_of().state_dict(), dtype=torch.bfloat16)
    for given in (mel(), mel(dtype=torch.float32), [waveform()] * 3):
        assert model(given).dtype == torch.bfloat16


def test_the_encoder_runs_once_for_many_targets() -> None:
    model, ids = model_of(), prompts()
    given = ModelInputs(ids=ids, source=ModelInputs(mel=mel()))
    logits, cache = model.run_with_cache(given, ["cross_attn.hook_pattern"])
    made = model.encode(mel())
    assert made.stream.shape == (3, 11, D)
    assert close(model(ModelInputs(ids=torch.cat([ids, ids]), source=made)), torch.cat([logits, logits]))
    assert cache["cross_attn.hook_pattern", 1].shape == (3, 2, 13, 11)
    past = model.new_past()
    steps = [model(ModelInputs(ids=ids[:, :4], source=given.source), past=past)]
    steps += [model(ModelInputs(ids=ids[:, i, None]), past=past) for i in range(4, 13)]
    assert close(torch.cat(steps, 1), logits)


WHISPER_TINY: dict[str, Any] = {
    "_name_or_path": "openai/whisper-tiny", "activation_dropout": 0.0, "activation_function": "gelu",
    "architectures": ["WhisperForConditionalGeneration"], "attention_dropout": 0.0,
    "begin_suppress_tokens": [220, 50257], "bos_token_id": 50257, "d_model": 384, "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536, "decoder_layerdrop": 0.0, "decoder_layers": 4, "decoder_start_token_id": 50258,
    "dropout": 0.0, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "encoder_layerdrop": 0.0,
    "encoder_layers": 4, "eos_token_id": 50257, "forced_decoder_ids": [[1, 50259], [2, 50359], [3, 50363]],
    "init_std": 0.02, "is_encoder_decoder": True, "max_length": 448, "max_source_positions": 1500,
    "max_target_positions": 448, "model_type": "whisper", "num_hidden_layers": 4, "num_mel_bins": 80,
    "pad_token_id": 50257, "scale_embedding": False, "suppress_tokens": [1, 2, 7, 8], "torch_dtype": "float32",
    "transformers_version": "4.27.0.dev0", "use_cache": True, "vocab_size": 51865,
}  # fmt: skip


def test_a_configuration_of_the_hub() -> None:
    cfg = find(WHISPER_TINY).config(WHISPER_TINY)
    assert cfg.source is not None and cfg.source.embed.mel is not None
    assert (cfg.source.embed.mel.n_mels, cfg.source.embed.mel.n_frames, cfg.n_ctx) == (80, 3000, 448)
    assert (cfg.start_token, cfg.forced) == (50258, (50259, 50359, 50363))
    assert n_parameters(cfg) == 37_760_640  # the stored positions of the encoder count
    assert in_words(cfg)[0] == "encoder: 3,000 frames of 80 mel bands, through two convolutions"
    for field, value in {"scale_embedding": True, "is_encoder_decoder": False, "novelty": 1}.items():
        with pytest.raises(ValueError, match=field):
            find(WHISPER_TINY).config({**WHISPER_TINY, field: value})


# ------------------------------------------------------------------ refusals


WANTED = r"whisper reads mel frames \[batch, 7, 22\] or waveforms of floats at 16 kHz, not"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (mel()[:, :, :20], rf"{WANTED} Tensor \(3, 7, 20\) torch.float64"),
        (mel()[:, :5], WANTED),
        (prompts(), rf"{WANTED} Tensor \(13,\) torch.int64"),
        (waveform().astype(np.int16), WANTED),
        (np.zeros((2, 2, 2, 2)), WANTED),
        ("hello", f"{WANTED} str"),
        (["hello"], f"{WANTED} str"),
        ([], "there is no waveform"),
        (waveform(0), WANTED),
        (waveform(4000), r"4000 samples \(0.25 s\) and whisper reads at most 3520 \(0.22 s\)"),
        (ModelInputs(ids=prompts(), source=ModelInputs(ids=prompts())), r"reads mel frames \[batch, 7, 22\]"),
        (ModelInputs(ids=prompts()), "whisper needs a source"),
        (ModelInputs(ids=prompts(2), source=ModelInputs(mel=mel())), "the source has 3 rows, and its target"),
    ],
)
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of()(given)


def test_models_of_texts_refuse_sounds() -> None:
    with pytest.raises(ValueError, match="gpt2 reads tokens, not sounds"):
        ours("gpt2", "tied")(ModelInputs(mel=mel()))
    with pytest.raises(ValueError, match="suppressed id 99 is outside the vocabulary of whisper"):
        model_of().generate(mel(), 3, suppress=[99])


def test_sites_of_sounds_are_the_encoders() -> None:
    sites = model_of().sites
    assert sites["encoder.hook_conv1_pre"].shape == "batch frame d_model"
    assert sites["encoder.hook_conv1_pre"].part == "source"
    assert "decoder.hook_conv1_pre" not in sites
    assert "encoder.hook_conv1_pre" not in ours("bart", "plain").sites
