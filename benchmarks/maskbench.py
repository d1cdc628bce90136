"""How many real-world JSON schemas are enforced, how exactly, and how fast?

Run:    python benchmarks/maskbench.py --data FILE.jsonl [--limit N] [--tokenizer DIR]
Prints: what does not pass, and one JSON object as its last line.

Data: one schema a line, {"name", "schema", "tests": [{"valid", "data"}]}, as MaskBench has them
(github.com/guidance-ai/jsonschemabench). No model is needed.

Method. Each schema is compiled with no cache, through the same calls, options and tiers as a
request; time to first mask (TTFM) runs from the schema as a Python object to the first token
bitmask, with every grammar that was tried on the way. Each instance, written as
json.dumps(data, ensure_ascii=False), goes token by token through the guide, and if it comes
through, through the check where the tier has one; time between masks (TBM) is one bitmask and one
advance. A schema passes if it is not refused, every valid instance comes through and no invalid one
does.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.grammar.compiler import Index, compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.vocabulary import Vocabulary


@dataclass(slots=True)
class SchemaResult:
    """What became of one schema and its instances; times in seconds."""

    name: str
    tier: str = "refused"
    ttfm_s: float = 0.0
    tbm_s: list[float] = field(default_factory=list)
    valid_rejected: int = 0
    invalid_accepted: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def is_passing(self) -> bool:
        """Served, and right about every instance."""
        return self.tier != "refused" and not self.valid_rejected and not self.invalid_accepted


def run_schema(line: dict[str, Any], vocabulary: Vocabulary) -> SchemaResult:
    """Compile one schema and put its instances through."""
    result = SchemaResult(line["name"])
    row = np.zeros(vocabulary.num_bitmask_words, dtype=np.int32)
    start = time.perf_counter()
    try:
        index = compile_constraint(json_schema_constraint(line["schema"]), vocabulary)
        index.guide().fill_bitmask(row)
    except LiteLLMMLXError as error:
        result.reasons.append(str(error))
        return result
    result.ttfm_s = time.perf_counter() - start
    result.tier = index.tier
    for test in line["tests"]:
        text = json.dumps(test["data"], ensure_ascii=False)
        reason = why_rejected(index, vocabulary, text, result.tbm_s)
        if test["valid"] and reason is not None:
            result.valid_rejected += 1
            result.reasons.append(f"valid instance rejected {reason}")
        if not test["valid"] and reason is None:
            result.invalid_accepted += 1
            result.reasons.append(f"invalid instance accepted: {text[:200]}")
    return result


def why_rejected(index: Index, vocabulary: Vocabulary, text: str, tbm_s: list[float]) -> str | None:
    """Say where the guide or the check stops a text; None where it comes through."""
    guide, row = index.guide(), np.zeros(vocabulary.num_bitmask_words, dtype=np.int32)
    tokenizer = vocabulary.ll_tokenizer
    token_ids = tokenizer.tokenize_str(text)
    for place, token_id in enumerate(token_ids):
        start = time.perf_counter()
        try:
            guide.fill_bitmask(row)
            if not int(row[token_id // 32]) >> (token_id % 32) & 1:
                before, after = tokenizer.decode_str(token_ids[:place]), token_ids[place:]
                return f"after {before[-80:]!r} at {tokenizer.decode_str(after)[:40]!r}"
            guide.advance(token_id)
        except LiteLLMMLXError as error:
            return f"by an error of the guide: {error}"
        if place:
            tbm_s.append(time.perf_counter() - start)
    if not guide.is_accepting:
        return "at its end: the guide wants more"
    said = index.check(text) if index.tier == "grammar+check" else None
    return None if said is None else f"by the check: {said}"


def summary(results: Iterable[SchemaResult]) -> dict[str, Any]:
    """The figures of a run; times in microseconds."""
    results = list(results)
    tiers = [result.tier for result in results]
    ttfm = [result.ttfm_s for result in results if result.tier != "refused"]
    tbm = [seconds for result in results for seconds in result.tbm_s]
    return {
        "schemas": len(results),
        "passing": sum(result.is_passing for result in results),
        "refused": tiers.count("refused"),
        "valid_rejected": sum(result.valid_rejected for result in results),
        "invalid_accepted": sum(result.invalid_accepted for result in results),
        "tier_grammar": tiers.count("grammar"),
        "tier_check": tiers.count("grammar+check"),
        "ttfm_us": _percentiles(ttfm, "p50", "p99", "max"),
        "tbm_us": _percentiles(tbm, "avg", "p50", "p99", "max"),
    }


def _percentiles(seconds: list[float], *names: str) -> dict[str, float]:
    if not seconds:
        return dict.fromkeys(names, 0.0)
    figures = {
        "avg": float(np.mean(seconds)),
        "p50": float(np.percentile(seconds, 50)),
        "p99": float(np.percentile(seconds, 99)),
        "max": max(seconds),
    }
    return {name: round(figures[name] * 1e6, 1) for name in names}


def read_lines(path: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    """The schemas of a file, one a line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if limit is not None and number >= limit:
                return
            if line.strip():
                yield json.loads(line)


def load_vocabulary(tokenizer_dir: Path | None) -> Vocabulary:
    """The vocabulary of the embedded model, or of the tokenizer in a directory."""
    if tokenizer_dir is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir, local_files_only=True)
        stops = {tokenizer.eos_token_id} - {None}
    else:
        from litellm_mlx.models.embedded import ensure_embedded
        from litellm_mlx.models.gguf import load_gguf_tokenizer

        wrapper = load_gguf_tokenizer(ensure_embedded())
        tokenizer, stops = wrapper._tokenizer, wrapper.eos_token_ids
    return Vocabulary.from_tokenizer(tokenizer, vocab_size=len(tokenizer), stop_token_ids=stops)


def main() -> None:
    """Run the benchmark as the options say."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True, help="schemas, one a line")
    options.add_argument("--limit", type=int, help="only the first N schemas")
    options.add_argument("--tokenizer", type=Path, help="directory of a tokenizer.json")
    options.add_argument("--failures", type=Path, help="write what does not pass here, as TSV")
    arguments = options.parse_args()
    vocabulary = load_vocabulary(arguments.tokenizer)
    run_schema({"name": "warm-up", "schema": True, "tests": []}, vocabulary)
    gc.freeze()  # the vocabulary is no garbage; collecting over it would be timed
    lines = read_lines(arguments.data, arguments.limit)
    results = [run_schema(line, vocabulary) for line in lines]
    failures = [result for result in results if not result.is_passing]
    for result in failures:
        print(f"{result.name} ({result.tier}): {result.reasons[0]}", file=sys.stderr)
    if arguments.failures:
        rows = (f"{result.name}\t{result.tier}\t{'; '.join(result.reasons)}" for result in failures)
        arguments.failures.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(json.dumps(summary(results)))


if __name__ == "__main__":
    main()
