"""The numbers in a GGUF file's header, read without its tensors, which MLX would read with them.

Source of the layout: ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from litellm_mlx.errors import ModelLoadError

_MAGIC = b"GGUF"
_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?")))
_SCALARS |= {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def gguf_number(path: Path, key_end: str) -> Any:
    """The first value of the header whose key ends so; `None` where there is none.

    Raises:
        ModelLoadError: the file is no GGUF, or ends too early.
    """
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ModelLoadError(f"{path} is no GGUF file")
        try:
            _, _, num_values = struct.unpack("<IQQ", file.read(20))
            for _ in range(num_values):
                key, value = _string(file), _value(file, _scalar(file, "I"))
                if key.endswith(key_end):
                    return value
        except struct.error as error:
            raise ModelLoadError(f"{path} ends within its header") from error
    return None


def _value(file: BinaryIO, kind: int) -> Any:
    """A value; of an array, `None`: the vocabulary is one, and nobody asks for it here."""
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        kind, length = _scalar(file, "I"), _scalar(file, "Q")
        if kind in _SCALARS:
            file.seek(length * struct.calcsize(_SCALARS[kind]), 1)
            return None
        for _ in range(length):
            _value(file, kind)
        return None
    if kind not in _SCALARS:
        raise ModelLoadError(f"a GGUF header holds a value of the unknown kind {kind}")
    return _scalar(file, _SCALARS[kind])


def _string(file: BinaryIO) -> str:
    return file.read(_scalar(file, "Q")).decode("utf-8", "replace")


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0]
