"""What this machine is to MLX: device, memory and its limits, BLAS."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from litellm_mlx.errors import ModelLoadError
from litellm_mlx.models.blas import choose_blas

Device = Literal["metal", "cuda", "cpu"]

GIB = 1 << 30

# How MLX's errors of Metal and CUDA begin, or name the call that failed.
_OF_A_GPU = re.compile(r"\[METAL\]|\[metal|CUDA|\bcu(?:da|dnn|blas|[A-Z])\w+")


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """The device that MLX computes on.

    `memory_bytes` is what a process may use of it at most, `available_bytes` what of that was
    free when asked. `blas` is the tuned library that serves the CPU, if one does.
    """

    device: Device
    device_name: str
    memory_bytes: int
    available_bytes: int
    blas: str | None = None


def use_cpu() -> None:
    """Compute on the CPU from now on, on every thread: MLX has one default device per process."""
    choose_blas()
    mx = _import_mlx()
    mx.set_default_device(mx.cpu)


def is_device_failure(error: BaseException | None) -> bool:
    """Whether an error says that the GPU failed, and not our code or the request."""
    return isinstance(error, RuntimeError) and _OF_A_GPU.search(str(error)) is not None


def hardware_profile() -> HardwareProfile:
    """The machine as it is now. Imports mlx.core, after a tuned BLAS had its chance.

    Raises:
        ModelLoadError: MLX is not installed for this machine.
    """
    blas = choose_blas()
    mx = _import_mlx()

    info: dict[str, Any] = dict(mx.device_info())
    name = str(info.get("device_name", "unknown"))
    if mx.default_device().type == mx.DeviceType.cpu:
        memory_bytes, available_bytes = cpu_memory_bytes()
        return HardwareProfile("cpu", name, memory_bytes, available_bytes, blas.library)
    if mx.metal.is_available():
        return _metal_profile(name, info)
    return _cuda_profile(name, info)


def _import_mlx() -> Any:
    """mlx.core; on Linux the plain `mlx` wheel lacks its library, which an extra brings."""
    try:
        import mlx.core as mx
    except ImportError as error:
        raise ModelLoadError(
            f"MLX cannot be imported ({error}); on Linux run `pip install 'litellm-mlx[cpu]'` "
            f"or `pip install 'litellm-mlx[cuda]'`"
        ) from error
    return mx


def _metal_profile(name: str, info: dict[str, Any]) -> HardwareProfile:
    """Metal shares the machine's memory; the working set is the part it advises to use."""
    import mlx.core as mx

    limit = int(info.get("max_recommended_working_set_size") or info["memory_size"])
    return HardwareProfile("metal", name, limit, max(limit - mx.get_active_memory(), 0))


def _cuda_profile(name: str, info: dict[str, Any]) -> HardwareProfile:
    total = int(info.get("total_memory") or info.get("memory_size") or 0)
    free = int(info.get("free_memory") or total)
    return HardwareProfile("cuda", name, total, free)


def cpu_memory_bytes(root: Path = Path("/")) -> tuple[int, int]:
    """Usable and available bytes of main memory; a container's limit counts.

    Args:
        root: where `proc` and `sys` hang; a test hangs its own.
    """
    total, available = _machine_memory(root)
    for limit, used in _cgroup_limits(root):
        total = min(total, limit)
        available = min(available, max(limit - used, 0))
    return total, available


def _machine_memory(root: Path) -> tuple[int, int]:
    """Physical and available bytes; where nothing tells the second, the first stands for it."""
    fields = {}
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            fields[name] = int(value.split()[0]) * 1024
    if "MemTotal" in fields:
        return fields["MemTotal"], fields.get("MemAvailable", fields["MemTotal"])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total, total


def _cgroup_limits(root: Path) -> list[tuple[int, int]]:
    """(limit, used) in bytes of every memory control group above this process."""
    limits = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        for folder in _with_parents(base, group):
            limits += _read_limit(folder, *names)
    return limits


def _with_parents(base: Path, group: str) -> list[Path]:
    """The group's folder and those above it; inside a container the group may be the root."""
    parts = Path(group.lstrip("/")).parts
    return [base.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _read_limit(folder: Path, limit_name: str, used_name: str) -> list[tuple[int, int]]:
    limit, used = _read(folder / limit_name).strip(), _read(folder / used_name).strip()
    if not limit.isdigit():  # absent, or "max"
        return []
    return [(int(limit), _reclaimed(folder, int(used) if used.isdigit() else 0))]


def _reclaimed(folder: Path, used: int) -> int:
    """`used` without the file cache, which the kernel gives back when memory is short."""
    lines = _read(folder / "memory.stat").splitlines()
    fields = {name: value for name, _, value in (line.partition(" ") for line in lines)}
    cached = fields.get("total_inactive_file") or fields.get("inactive_file") or "0"
    return max(used - int(cached), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
