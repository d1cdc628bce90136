"""What every benchmark shares: options, spreads, turns, and what the figures were measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from litellm_mlx.models.hardware import HardwareProfile

PACKAGES = ("litellm-mlx", "mlx", "mlx-lm", "llguidance", "outlines", "litellm", "dspy")
# A BLAS's helper threads spin for 0.2 s after their last product, on cores that the next arm needs.
PAUSE_S = 0.25

T = TypeVar("T")


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


def add_plot(options: argparse.ArgumentParser) -> None:
    """Add `--plot`, for a benchmark that can draw its result."""
    options.add_argument("--plot", type=Path, metavar="DIR", help="write the plot there as PNG")


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


def heading(benchmark: str, loaded: Any, given: argparse.Namespace) -> dict[str, Any]:
    """How every result begins: what was measured, on what, and by which options."""
    options = {
        name: value
        for name, value in vars(given).items()
        if name not in ("model", "repeats", "json", "plot")
    }
    return {
        "benchmark": benchmark,
        "versions": versions(),
        "machine": machine(loaded.hardware),
        "model": given.model.removeprefix("mlx/"),
        "weights": loaded.dtype,
        "repeats": given.repeats,
        "options": options,
    }


def finish(
    result: dict[str, Any],
    given: argparse.Namespace,
    plot: Callable[[dict[str, Any], Path], None] | None = None,
) -> None:
    """Draw the result where a plot is wanted; print it as the last line."""
    if plot is not None and given.plot is not None:
        given.plot.mkdir(parents=True, exist_ok=True)
        plot(result, given.plot / f"{result['benchmark']}.png")
    print(json.dumps(result))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table for a person."""
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def take_turns(
    arms: Mapping[str, Callable[[], T]], repeats: int, *, quiet: bool, pause_s: float = PAUSE_S
) -> dict[str, list[T]]:
    """Every arm once per repeat, in turned order every second time, so that a drift cancels."""
    names = list(arms)
    samples: dict[str, list[T]] = {name: [] for name in names}
    for repeat in range(1, repeats + 1):
        for name in names if repeat % 2 else reversed(names):
            time.sleep(pause_s)
            start_s = time.perf_counter()
            samples[name].append(arms[name]())
            took_s = time.perf_counter() - start_s
            say(f"{repeat}/{repeats} {name}: {took_s:.1f} s", quiet=quiet)
    return samples


def over(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Ratios taken within each repeat."""
    return Spread.of([a / b for a, b in zip(values, base, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


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
