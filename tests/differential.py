"""What a grammar accepts against what its schema means, text by text.

Owns the search and its verdicts; what is tried is `differential_material`, what is right says
`differential_oracle`. A bounded part of it is a test, the whole a benchmark.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.grammar import number_limit
from litellm_mlx.grammar.compiler import Index, compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.vocabulary import Vocabulary
from tests.differential_material import texts_of
from tests.differential_oracle import Oracle
from tests.grammar_sampling import draw, small_vocabulary


@dataclass(slots=True)
class Tally:
    """What a search has found so far.

    `withheld` are valid texts of a grammar that holds alone which the final validation rejects.
    """

    schemas: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    valid: int = 0
    accepted: int = 0
    invalid_accepted: list[tuple[Any, str]] = field(default_factory=list)
    stopped_by_validation: int = 0
    withheld: list[tuple[Any, str]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """The figures."""
        num_rejected = self.rejected.total()
        return {
            "schemas": self.schemas,
            "tiers": dict(self.tiers),
            "pairs": self.pairs,
            "valid": self.valid,
            "accepted": self.accepted,
            "invalid_accepted": len(self.invalid_accepted),
            "of_these_stopped_by_validation": self.stopped_by_validation,
            "valid_withheld": len(self.withheld),
            "valid_rejected": num_rejected,
            "valid_rejected_share": round(num_rejected / max(self.valid, 1), 4),
            "by_reason": dict(self.rejected.most_common()),
        }


def search(
    schema: Any,
    vocabulary: Vocabulary,
    rng: random.Random,
    tally: Tally,
    *,
    number: int,
    num_draws: int = 4,
    adapter: TypeAdapter[Any] | None = None,
) -> None:
    """Hold one schema's grammar against the oracle, over some `number` of texts.

    Args:
        schema: to compile.
        vocabulary: whose tokens the grammar is for.
        rng: draws all that is random.
        tally: gets the verdicts.
        number: about how many texts of each kind.
        num_draws: texts drawn from the grammar itself.
        adapter: of the Pydantic type that wrote the schema, which must take what is accepted, too.
    """
    tally.schemas += 1
    try:
        index = compile_constraint(json_schema_constraint(schema), vocabulary)
    except LiteLLMMLXError as error:
        tally.tiers["refused"] += 1
        tally.refused[str(error)[:100]] += 1
        return
    tally.tiers[index.tier] += 1
    oracle = Oracle(schema)
    if not oracle.can_judge:
        tally.tiers["unjudged"] += 1
        return
    drawn = _drawn(schema, rng, num_draws)
    for text in dict.fromkeys([*drawn, *texts_of(schema, drawn, rng, number)]):
        is_valid = oracle.is_valid(text)
        if is_valid and adapter is not None:
            is_valid = _takes(adapter, text)
        said = index.check(text)
        passes = follows(index, text) and (index.tier == "grammar" or said is None)
        tally.pairs += 1
        tally.valid += is_valid
        tally.accepted += passes
        if passes and not is_valid:
            tally.invalid_accepted.append((schema, text))
            tally.stopped_by_validation += said is not None
        elif passes and said is not None:
            tally.withheld.append((schema, text))
        elif is_valid and not passes:
            tally.rejected[why_rejected(schema, index, text)] += 1


def _drawn(schema: Any, rng: random.Random, number: int) -> list[str]:
    """Texts of the schema's grammar over a small vocabulary, which is the quickest."""
    index, texts = compile_constraint(json_schema_constraint(schema), small_vocabulary()), []
    for _ in range(number):
        with suppress(LiteLLMMLXError):  # a limit of the engine's own
            texts.append(draw(index, small_vocabulary(), rng, max_tokens=60))
    return [text.decode() for text in texts if text]


def _takes(adapter: TypeAdapter[Any], text: str) -> bool:
    try:
        adapter.validate_json(text)
    except ValueError:
        return False
    return True


def follows(index: Index, text: str) -> bool:
    """Whether the grammar lets a text through, in the tokenizer's own tokens."""
    guide = index.guide()
    if not guide.ends_with(guide.vocabulary.ll_tokenizer.tokenize_str(text)):
        return False
    # A guide that is asked at its beginning leaves this to the bitmask.
    return not number_limit.goes_too_far(number_limit.START, text.encode())


def why_rejected(schema: Any, index: Index, text: str) -> str:
    """What of a valid text the grammar, or the check, does not take."""
    usual = json.dumps(json.loads(text), ensure_ascii=False)
    if text != usual:
        return "spelled otherwise than json.dumps"
    if follows(index, text):
        return "twice the same key" if "twice" in (index.check(text) or "") else "by the check"
    if "\x7f" in usual or re.search(r"\\u00[01]", usual):
        return "control characters"
    if "<think>" in usual:
        return "a marker of the model's in the text"
    if re.search(r"\d[eE][+-]?\d", usual):
        return "number with an exponent"
    if '"format"' in json.dumps(schema):
        return "format narrower than its RFC"
    if _is_taken_in_another_order(json.loads(text), index):
        return "order of keys"
    if re.search(r"\d\.0\b", usual):
        return "whole number written as a float"
    if re.search(r"\d\.\d", usual) and "aximum" in json.dumps(schema):
        return "decimal close to a bound"
    return "other"


def _is_taken_in_another_order(value: Any, index: Index) -> bool:
    orders = list(itertools.islice(_reordered(value), 24))
    return any(follows(index, json.dumps(other, ensure_ascii=False)) for other in orders)


def _reordered(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for items in itertools.permutations(value.items()):
            for inner in itertools.islice(itertools.product(*(_reordered(v) for _, v in items)), 6):
                yield dict(zip((name for name, _ in items), inner, strict=True))
    elif isinstance(value, list):
        for inner in itertools.islice(itertools.product(*map(_reordered, value)), 6):
            yield list(inner)
    else:
        yield value
