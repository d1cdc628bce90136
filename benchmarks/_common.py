"""What every benchmark shares: options, spreads, and what the figures were measured on."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from litellm_mlx.models.hardware import HardwareProfile

PACKAGES = ("litellm-mlx", "mlx", "mlx-lm", "llguidance", "outlines", "litellm")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of a measurement's repeats."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        """`median (min-max)`, each by `spec`."""
        return f"{self.median:{spec}} ({self.min:{spec}}-{self.max:{spec}})"

    def as_json(self, digits: int = 3) -> dict[str, float]:
        """The three figures, rounded."""
        return {name: round(value, digits) for name, value in asdict(self).items()}


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has; `description` is its docstring."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="smollm2-135m", help="name without mlx/")
    options.add_argument("--repeats", type=_positive, default=5, help="after one warm-up")
    options.add_argument("--json", action="store_true", help="print the JSON line only")
    return options


def add_count(options: argparse.ArgumentParser, name: str, default: int, text: str) -> None:
    """Add an option that takes a positive number."""
    options.add_argument(name, type=_positive, default=default, help=f"{text} ({default})")


def machine(hardware: HardwareProfile) -> dict[str, str | int | None]:
    """The machine as the figures should name it. Call it once MLX is imported."""
    return {
        "device": hardware.device,
        "device_name": hardware.device_name,
        "cores": _usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "memory_gib": round(hardware.memory_bytes / 2**30),
        "blas": Path(hardware.blas).name if hardware.blas else None,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            found[package] = "not installed"
    return found


def say(text: str, *, quiet: bool) -> None:
    """Tell a person how far the run is, on stderr."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def _usable_cores() -> int:
    """Cores that this process may run on; macOS cannot tell and has them all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value
