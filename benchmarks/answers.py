"""Is every answer valid, and how many schemas are answered, with random weights and few tokens?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/answers.py --data FILE.jsonl
Prints: a table of outcomes per token budget, and one JSON object as its last line.

Method. Schemas are drawn from the file (lines `{"name", "schema", ...}`) with a fixed seed. A model
of two random layers with the embedded model's tokenizer answers each through `litellm.completion`
at temperature 1, so nothing but the constraint keeps it in form. Every returned text is parsed and
validated by the Python package jsonschema, which the package itself does not use. Outcomes:

    answered    a text came back; `invalid` counts those that the oracle rejects
    too small   refused before generation: the shortest valid text does not fit max_tokens
    exhausted   every try failed the check (litellm.JSONSchemaValidationError)
    refused     the schema is not enforced at all
    error       anything else
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jsonschema
import litellm
from _common import say, versions

sys.path.insert(0, str(Path(__file__).parents[1]))  # the maker of random weights is the tests' own

import litellm_mlx
from litellm_mlx.config import EngineConfig
from litellm_mlx.models.loader import load_model
from litellm_mlx.models.names import EMBEDDED_ALIAS, parse_model_name
from tests.tiny_model import make_tiny_model

USER = [{"role": "user", "content": "Fill in the form."}]
TOO_SMALL = "shortest"


def random_model(path: Path) -> str:
    """A model name: random weights under the embedded model's tokenizer."""
    embedded = load_model(parse_model_name(EMBEDDED_ALIAS), EngineConfig())
    eos = sorted(embedded.stop_token_ids)
    make_tiny_model(
        path,
        vocab_size=embedded.vocab_size,
        config={"eos_token_id": eos, "max_position_embeddings": 8192},
    )
    tokenizer = embedded.tokenizer
    tokenizer._tokenizer.save_pretrained(path)
    return f"mlx/{path}"


def chosen(data: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Lines of the file, drawn without replacement."""
    lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    return random.Random(seed).sample(lines, min(count, len(lines)))


def answer(model: str, schema: Any, max_tokens: int, seed: int) -> tuple[str, str]:
    """What became of one request: the outcome, and the text or the error's message."""
    wrapped = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    try:
        response = litellm.completion(
            model=model,
            messages=USER,
            response_format=wrapped,
            max_tokens=max_tokens,
            temperature=1.0,
            seed=seed,
        )
    except litellm.exceptions.JSONSchemaValidationError as error:
        return "exhausted", str(error)
    except litellm.BadRequestError as error:
        return ("too small" if TOO_SMALL in str(error) else "refused"), str(error)
    except Exception as error:  # what must not happen is counted, not raised
        return "error", f"{type(error).__name__}: {error}"
    return "answered", response.choices[0].message.content


def problem(schema: Any, text: str) -> str | None:
    """What the oracle finds wrong with a text."""
    try:
        validator = jsonschema.validators.validator_for(schema)
        validator(schema).validate(json.loads(text))
    except Exception as error:  # a text that is not JSON included
        return str(error).splitlines()[0]
    return None


def main() -> None:
    """Ask, judge, print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--limit", type=int, default=200, help="schemas (200)")
    options.add_argument("--seed", type=int, default=0, help="of the choice and the answers")
    options.add_argument("--max-tokens", type=int, nargs="+", default=[64, 200])
    options.add_argument("--failures", type=Path, help="write the doubtful ones here")
    options.add_argument("--json", action="store_true", help="print the JSON line only")
    given = options.parse_args()
    lines = chosen(given.data, given.limit, given.seed)
    results, doubtful = {}, []
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "model")
        for max_tokens in given.max_tokens:
            counts: collections.Counter[str] = collections.Counter()
            start = time.monotonic()
            for index, line in enumerate(lines):
                outcome, text = answer(model, line["schema"], max_tokens, given.seed + index)
                counts[outcome] += 1
                wrong = problem(line["schema"], text) if outcome == "answered" else text
                if outcome == "answered" and wrong:
                    counts["invalid"] += 1
                if wrong and outcome != "too small":
                    record = {"name": line["name"], "max_tokens": max_tokens, "outcome": outcome}
                    doubtful.append(record | {"text": text[:500], "problem": wrong[:500]})
            fitting = len(lines) - counts["too small"] - counts["refused"]
            results[max_tokens] = {
                **{key: counts[key] for key in ("answered", "invalid", "too small")},
                **{key: counts[key] for key in ("exhausted", "refused", "error")},
                "answered_of_fitting": round(counts["answered"] / max(fitting, 1), 4),
                "seconds": round(time.monotonic() - start, 1),
            }
            say(f"max_tokens {max_tokens}: {results[max_tokens]}", quiet=given.json)
        litellm_mlx.unload_all()
    if given.failures is not None:
        given.failures.write_text("".join(json.dumps(item) + "\n" for item in doubtful))
    if not given.json:
        names = list(next(iter(results.values())))
        print("| max_tokens | " + " | ".join(names) + " |")
        print("|---" * (len(names) + 1) + "|")
        for max_tokens, found in results.items():
            print(f"| {max_tokens} | " + " | ".join(str(found[name]) for name in names) + " |")
    print(
        json.dumps(
            {
                "benchmark": "answers",
                "versions": versions(),
                "schemas": len(lines),
                "seed": given.seed,
                "by_max_tokens": results,
            }
        )
    )


if __name__ == "__main__":
    main()
