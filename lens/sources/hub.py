"""A Hugging Face id, `org/name` or `org/name@revision`, through the hub's own client and cache.

`HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN` and `HF_ENDPOINT` are the client's and work as everywhere. Only
config, tokenizer and safetensors at the top of the repository are fetched.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from lens.checkpoint import Checkpoint, Source
from lens.progress import Progress
from lens.sources.folder import open_folder

_FILES = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
]
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def _open(name: str, progress: Progress) -> Checkpoint:
    """The checkpoint of a repository.

    Raises:
        ValueError: the repository is absent, gated or unreachable, or has no safetensors.
    """
    path = _fetch(name, progress)
    repository = name.partition("@")[0]
    commit = path.name
    if not any(path.glob("*.safetensors")):
        raise ValueError(f"{name!r} on the Hugging Face hub has no safetensors weights; pickles are not read")
    return open_folder(
        path,
        name=repository,
        origin=f"Hugging Face hub, {repository} at {commit[:12]}",
        revision=f"git:{commit[:16]}" if re.fullmatch(r"[0-9a-f]{40}", commit) else None,
        progress=progress,
    )


def _snapshot(repository: str, revision: str | None, progress: Progress) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=_FILES, tqdm_class=_reporting(progress)
            )
        )
    except errors.GatedRepoError as error:
        reason = "it is gated: ask for access on its page and set HF_TOKEN"
        raise ValueError(f"{repository!r} cannot be fetched from the Hugging Face hub: {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{repository!r} on the Hugging Face hub has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"{repository!r} is neither a folder here nor a model on the Hugging Face hub (private ones need "
            "HF_TOKEN)"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise ValueError(
            f"{repository!r} is neither a folder here nor in the Hugging Face cache, and {reason}"
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(f"{repository!r} is not a Hugging Face id") from error
    except _transport_errors(errors) as error:
        raise ValueError(f"{repository!r} could not be fetched from the Hugging Face hub: {error}") from error


def _transport_errors(errors: Any) -> tuple[type[Exception], ...]:
    """What the client's HTTP library (which one depends on its version) and the disk raise."""
    return errors.HfHubHTTPError.__bases__


def _reporting(progress: Progress) -> type[Any]:
    """A tqdm class that draws nothing and reports the bytes of the whole snapshot to `progress`."""
    from tqdm import tqdm

    class Reporting(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO()})

        def display(self, *args: Any, **kwargs: Any) -> None:
            if self.unit == "B" and self.total:
                progress(int(self.n), int(self.total), "fetching from the Hugging Face hub")

    return Reporting


def _fetch(name: str, progress: Progress) -> Path:
    repository, _, revision = name.partition("@")
    return _snapshot(repository, revision or None, progress)


SOURCE = Source(rank=40, accepts=lambda name: _ID.fullmatch(name) is not None, open=_open, fetch=_fetch)
