"""Does any grammar accept what its schema forbids, and which valid texts does none write?

Run:    python benchmarks/differential.py [--pairs N] [--seed N] [--tokenizer DIR]
Prints: what is wrong, a table of reasons, and one JSON object as its last line.

Method. Small schemas: every keyword alone and with every other; 32 character classes in 9 forms, as
value, names and names beside listed ones; numbers between two bounds of each kind; every format;
Pydantic types; then keywords nested in each other until there are `--pairs` pairs. For each, texts:
drawn from the grammar itself, usual values, those that the schema names, changes of all of these,
other spellings. A text is accepted if the matcher lets its tokens through (the embedded model's
tokenizer) and, in tier "grammar+check", the check passes it. The oracle is the Python package
jsonschema with ECMA's regexes and exact numbers, and Pydantic where a type wrote the schema.

    invalid_accepted   the grammar lets through what the oracle rejects: must be 0
    valid_withheld     a grammar that holds alone, and the final validation rejects what is valid
    valid_rejected     by reason; most are spellings that nobody reads differently
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from pathlib import Path

from _common import print_table, say, versions
from maskbench import load_vocabulary
from pydantic import TypeAdapter

sys.path.insert(0, str(Path(__file__).parents[1]))  # the search is the tests' own

from tests.differential import Tally, search
from tests.differential_material import (
    MODELS,
    bounded,
    combined,
    formatted,
    nested,
    patterned,
)

NUM_TEXTS = 14  # of each kind for each schema


def main() -> None:
    """Search and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--pairs", type=int, default=400_000, help="at least (400,000)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--tokenizer", type=Path, help="directory of a tokenizer.json")
    options.add_argument("--json", action="store_true", help="print the JSON line only")
    given = options.parse_args()
    vocabulary, rng, tally = load_vocabulary(given.tokenizer), random.Random(given.seed), Tally()
    start_s = time.monotonic()
    adapters = [TypeAdapter(model) for model in MODELS]
    parts = {
        "patterns": [(schema, None) for schema in patterned()],
        "bounds": [(schema, None) for schema in bounded()],
        "formats": list(formatted()),
        "keywords, alone and in pairs": [(schema, None) for schema in combined()],
        "Pydantic types": [(adapter.json_schema(), adapter) for adapter in adapters * 5],
    }
    for name, schemas in parts.items():
        for schema, adapter in schemas:
            search(schema, vocabulary, rng, tally, number=NUM_TEXTS, adapter=adapter)
        say(f"{name}: {len(schemas)} schemas, {tally.pairs} pairs so far", quiet=given.json)
    for schema in itertools.takewhile(lambda _: tally.pairs < given.pairs, nested(rng)):
        search(schema, vocabulary, rng, tally, number=NUM_TEXTS)
    for title, found in (("accepted", tally.invalid_accepted), ("withheld", tally.withheld)):
        for schema, text in found:
            print(f"wrongly {title}: {json.dumps(schema)} {text}", file=sys.stderr)
    if not given.json:
        rows = [(r, n, f"{n / tally.valid:.2%}") for r, n in tally.rejected.most_common()]
        print_table(("valid and rejected", "number", "of the valid"), rows)
    result = {"benchmark": "differential", "versions": versions(), "seed": given.seed}
    result |= {"seconds": round(time.monotonic() - start_s)} | tally.as_json()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
