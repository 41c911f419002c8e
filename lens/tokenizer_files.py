"""A tokenizer from the files of a Hugging Face folder.

As in transformers 5, what is added around a text is what `tokenizer.json` says; `add_bos_token` in
`tokenizer_config.json` counts only where there is no such file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens import byte_tokens
from lens.tokens import ROLES, Tokenizer

if TYPE_CHECKING:
    import tokenizers

_SLOW_FILES = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # these take nothing from their config
_WITHOUT_FILES = {"PerceiverTokenizer": byte_tokens.perceiver}
_OTHERWISE = {"bos": "cls", "eos": "sep"}  # what begins and ends a text, in BERT's words


def read(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer; None where it has none.

    Raises:
        ValueError: a file cannot be read as what its name says; the message names it.
    """
    config = {
        **_json(folder / "special_tokens_map.json"),
        **{k: v for k, v in _json(folder / "tokenizer_config.json").items() if v is not None},
    }
    if (folder / "tokenizer.json").exists():
        backend = _backend(folder / "tokenizer.json")
    elif any((folder / name).exists() for name in _SLOW_FILES):
        return _from_slow(folder)
    else:
        made = _WITHOUT_FILES.get(config.get("tokenizer_class", ""))
        return None if made is None else made()
    _add_missing(backend, config.get("added_tokens_decoder", {}))
    model = _json(folder / "config.json")
    special = {role: _special(config, role) or _by_id(backend, model, role) for role in ROLES}
    own_class = config.get("tokenizer_class") not in (None, *_GENERIC)
    if own_class and "add_prefix_space" in config and hasattr(backend.pre_tokenizer, "add_prefix_space"):
        backend.pre_tokenizer.add_prefix_space = config["add_prefix_space"]
    known: dict[str, Any] = {r: t for r, t in special.items() if t and backend.token_to_id(t) is not None}
    return Tokenizer(backend, **known, chat_template=_chat(folder, config))


def _from_slow(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        hf = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        backend = hf.backend_tokenizer
    except Exception as error:  # transformers raises many kinds for a file it cannot convert
        raise ValueError(f"the tokenizer files in {str(folder)!r} cannot be read: {error}") from error
    found = {f"{r}_token": getattr(hf, f"{r}_token", None) for r in (*ROLES, *_OTHERWISE.values())}
    special: dict[str, Any] = {role: _special(found, role) for role in ROLES}
    return Tokenizer(backend, **special, chat_template=hf.chat_template)


def _special(config: dict[str, Any], role: str) -> str | None:
    """The text of the special token that plays a role."""
    token = config.get(f"{role}_token") or config.get(f"{_OTHERWISE.get(role)}_token")
    return token.get("content") if isinstance(token, dict) else token


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object")
    return value


def _backend(path: Path) -> tokenizers.Tokenizer:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the backend raises plain Exception
        raise ValueError(f"{str(path)!r} is not a tokenizer: {error}") from error


def _by_id(backend: tokenizers.Tokenizer, model: dict[str, Any], role: str) -> str | None:
    token_id = model.get(f"{role}_token_id")
    token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
    return backend.id_to_token(token_id) if isinstance(token_id, int) and token_id >= 0 else None


def _add_missing(backend: tokenizers.Tokenizer, added: dict[str, Any]) -> None:
    import tokenizers

    for _, token in sorted(added.items(), key=lambda item: int(item[0])):
        if backend.token_to_id(token["content"]) is None:
            flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
            made = tokenizers.AddedToken(token["content"], **{f: token[f] for f in flags if f in token})
            backend.add_tokens([made])


def _chat(folder: Path, config: dict[str, Any]) -> str | None:
    template = config.get("chat_template")
    if isinstance(template, str):
        return template
    path = folder / "chat_template.jinja"
    return path.read_text(encoding="utf-8") if path.exists() else None
