"""Memory limits of machine and container, and the choice of a BLAS, without MLX."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from litellm_mlx.models.hardware import cpu_memory_bytes

GIB = 1 << 30


def make_root(root: Path, files: dict[str, str]) -> Path:
    meminfo = f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n"
    for name, text in {"proc/meminfo": meminfo, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_control_group_the_machine_counts(tmp_path: Path) -> None:
    assert cpu_memory_bytes(make_root(tmp_path, {})) == (16 * GIB, 12 * GIB)


def test_version_2_limits_count_from_every_level(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/pod/memory.current": f"{GIB}\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
        "sys/fs/cgroup/pod/box/memory.current": "0\n",
    }
    assert cpu_memory_bytes(make_root(tmp_path, files)) == (4 * GIB, 3 * GIB)


def test_version_1_limits_count_and_file_cache_is_free(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "9:name=systemd:/\n4:memory:/box\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/box/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
    }
    assert cpu_memory_bytes(make_root(tmp_path, files)) == (2 * GIB, 2 * GIB)


def test_this_machine_has_memory() -> None:
    total, available = cpu_memory_bytes()
    assert 0 < available <= total


CHOOSE = """
import logging, sys
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
logging.getLogger("litellm_mlx").addHandler(handler)
logging.getLogger("litellm_mlx").setLevel(logging.INFO)
if sys.argv[1:] == ["late"]:
    import mlx.core
from litellm_mlx.models import blas
from litellm_mlx.models.blas import choose_blas
if sys.argv[1:] == ["bare"]:
    blas._distribution_files = lambda *_: []
    blas.ctypes.util.find_library = lambda _: None
choice = choose_blas()
assert choose_blas() is choice
assert sys.argv[1:] or "mlx.core" not in sys.modules
print("CHOSE", choice.library)
"""


def choose(blas: str | None, *arguments: str) -> str:
    """What a fresh process says and chooses; a BLAS can't be unloaded from this one."""
    environment = {"PATH": "/usr/bin:/bin", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environment |= {"LITELLM_MLX_BLAS": blas} if blas else {}
    command = [sys.executable, "-c", CHOOSE, *arguments]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="macOS links Accelerate")


@linux_only
def test_the_blas_of_the_cpu_extra_is_chosen_in_one_line() -> None:
    """Also on a machine without libgfortran, as is the one that tests a new clone."""
    said = choose(None)
    assert "CHOSE None" not in said
    assert said.count("INFO") == 1
    assert "WARNING" not in said


@linux_only
def test_where_there_is_no_tuned_blas_the_command_that_gets_one_is_said() -> None:
    said = choose(None, "bare")
    assert "CHOSE None" in said
    assert said.count("WARNING") == 1
    assert "apt-get install" in said


@linux_only
def test_off_means_off() -> None:
    said = choose("off")
    assert "CHOSE None" in said
    assert "WARNING" not in said


@linux_only
def test_a_named_library_that_cannot_be_loaded_is_warned_of(tmp_path: Path) -> None:
    said = choose(str(tmp_path / "libnone.so"))
    assert "WARNING LITELLM_MLX_BLAS" in said
    assert "CHOSE None" in said


@linux_only
def test_a_library_without_blas_symbols_cannot_stand_in() -> None:
    said = choose("libc.so.6")
    assert "exports no cblas_sgemm" in said
    assert "CHOSE None" in said


@linux_only
def test_it_says_when_mlx_was_imported_first() -> None:
    said = choose(None, "late")
    assert "WARNING mlx.core was imported before" in said
    assert "CHOSE None" in said


def test_importing_logs_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, litellm_mlx.models.names, litellm_mlx.models.hardware\n"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "import logging; handlers = logging.getLogger('litellm_mlx').handlers\n"
        "sys.exit(f'{heavy} {handlers}' if heavy or handlers else 0)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert logging.getLogger("litellm_mlx").level == logging.NOTSET
