"""How much of a law's cases a run tries: a part of them always, all of them where asked to."""

from __future__ import annotations

import os

# SmolLM2 alone takes a quarter of an hour for all of them on 2 cores; scripts/test-long sets it.
IS_WHOLE = os.environ.get("LITELLM_MLX_WHOLE_TESTS") == "1"
