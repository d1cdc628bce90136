"""A tuned BLAS for MLX on a Linux CPU.

The Linux wheels of MLX bring the reference BLAS. Its functions are looked up among the symbols of
the whole process first, so a tuned library that is loaded with RTLD_GLOBAL before `mlx.core`
takes its place. This module therefore must not import mlx. Measured with 2 AMD EPYC cores,
2026-11, float32 (512 x 576) @ (576 x 49152): as shipped 11478 ms, MKL 218 ms, OpenBLAS 171 ms.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from litellm_mlx.models import fortran

logger = logging.getLogger("litellm_mlx")

BLAS_VARIABLE = "LITELLM_MLX_BLAS"
INSTALL_HINT = "apt-get install libopenblas0, or: pip install mkl"

# What MLX calls (mlx/backend/cpu/gemms/cblas.cpp). A wheel whose symbols carry a prefix, as
# scipy-openblas32, exports other names and can't stand in.
_NEEDED_SYMBOLS = ("cblas_sgemm", "cblas_dgemm")
_TIMEOUT_VARIABLE = "OPENBLAS_THREAD_TIMEOUT"  # read when the library is loaded; base-2 logarithm

_lock = threading.Lock()
_choice: BlasChoice | None = None


@dataclass(frozen=True, slots=True)
class BlasChoice:
    """Which BLAS serves this process; `library` is None where MLX's own does."""

    library: str | None
    note: str


def choose_blas() -> BlasChoice:
    """Load the first tuned BLAS that this machine has, once per process.

    Elsewhere than on Linux nothing is done: macOS links Accelerate. Any thread may call. Says in
    one log line what was chosen, or warns with the command that gets a tuned one.
    """
    global _choice
    with _lock:
        if _choice is None:
            _choice = _choose()
        return _choice


def _choose() -> BlasChoice:
    wanted = os.environ.get(BLAS_VARIABLE)
    if sys.platform != "linux":
        return BlasChoice(None, "the platform's own")
    if wanted == "off":
        return _log(BlasChoice(None, f"MLX's own, as {BLAS_VARIABLE}=off asks"))
    if "mlx.core" in sys.modules:
        return _too_late(wanted)
    if wanted:
        return _load_wanted(wanted)
    return _load_first()


def _too_late(wanted: str | None) -> BlasChoice:
    """What serves when mlx.core came before us: another library may have brought a BLAS."""
    if _is_tuned_global():
        return _log(BlasChoice("preloaded", "loaded by another library"))
    if _links_a_gpu():
        return BlasChoice(None, "not needed on a GPU")
    logger.warning(
        "mlx.core was imported before litellm_mlx could load %s, so matrix products on the CPU "
        "stay slow: load the model first, or set LD_PRELOAD to the library",
        wanted or "a tuned BLAS",
    )
    return BlasChoice(None, "MLX's own: mlx.core was imported first")


def _load_wanted(path: str) -> BlasChoice:
    error = _load(path)
    if error is None:
        return _log(BlasChoice(path, f"named by {BLAS_VARIABLE}"))
    logger.warning("%s=%s cannot be loaded (%s); MLX's own BLAS serves", BLAS_VARIABLE, path, error)
    return BlasChoice(None, f"MLX's own: {path} cannot be loaded")


def _load_first() -> BlasChoice:
    failed = []
    for find in (_system_openblas, _cmeel_openblas, _mkl):
        for path in find():
            error = _load(path)
            if error is None:
                return _log(BlasChoice(path, _origin(find)))
            failed.append(f"{path}: {error}")
    if not _links_a_gpu():
        tried = f" (tried {'; '.join(failed)})" if failed else ""
        logger.warning("no tuned BLAS%s: MLX is slow on this CPU. Get one: %s", tried, INSTALL_HINT)
    return BlasChoice(None, "MLX's own")


def _origin(find: Callable[[], Iterator[str]]) -> str:
    return {_system_openblas: "of the system", _cmeel_openblas: "of cmeel-openblas"}.get(
        find, "of mkl"
    )


def _log(choice: BlasChoice) -> BlasChoice:
    logger.info("BLAS for MLX on the CPU: %s (%s)", choice.library or "none", choice.note)
    return choice


def _load(path: str) -> str | None:
    """Load `path` for the whole process; returns why not, if it can't serve."""
    with _quiet_threads():
        error = _load_once(path)
        if error is not None and fortran.NAME in error:
            fortran.provide_libgfortran(_distribution_files("mlx-cpu", "lib"))
            error = _load_once(path)
    return error


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Let an OpenBLAS loaded inside put its threads to sleep soon after a product.

    For 2**26 cycles after each, as it comes, they keep a core from MLX and Python. Of 2**10, passes
    of 1, 16 and 48 tokens took 0.95, 0.99 and 0.88 of the time (2 AMD EPYC cores, 2026-11).
    """
    is_ours = _TIMEOUT_VARIABLE not in os.environ
    if is_ours:
        os.environ[_TIMEOUT_VARIABLE] = "10"
    try:
        yield
    finally:
        if is_ours:
            del os.environ[_TIMEOUT_VARIABLE]


def _load_once(path: str) -> str | None:
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_LOCAL | os.RTLD_LAZY)
        missing = [name for name in _NEEDED_SYMBOLS if not hasattr(library, name)]
        if missing:
            return f"exports no {missing[0]}"
        ctypes.CDLL(path, mode=os.RTLD_GLOBAL | os.RTLD_LAZY)
    except OSError as error:
        return str(error)
    return None


def _is_tuned_global() -> bool:
    """Whether the process already shows OpenBLAS or MKL to every library."""
    process = ctypes.CDLL(None)
    return any(hasattr(process, name) for name in ("openblas_get_config", "MKL_Get_Max_Threads"))


def _links_a_gpu() -> bool:
    """Whether MLX's CUDA back end is installed, so that the CPU's BLAS hardly matters."""
    return any(_distribution_files(f"mlx-cuda-{version}", "") for version in (12, 13))


def _system_openblas() -> Iterator[str]:
    found = ctypes.util.find_library("openblas")
    if found:
        yield found


def _cmeel_openblas() -> Iterator[str]:
    yield from _distribution_files("cmeel-openblas", "libopenblas.so")


def _mkl() -> Iterator[str]:
    """The single dynamic library; it finds its threading layer beside itself."""
    yield from _distribution_files("mkl", "libmkl_rt.so")


def _distribution_files(distribution: str, prefix: str) -> list[str]:
    """Existing files of an installed distribution whose names start with `prefix`."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    paths = [Path(str(file.locate())) for file in files if file.name.startswith(prefix)]
    return sorted(str(path.resolve()) for path in paths if path.is_file())
