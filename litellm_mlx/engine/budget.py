"""Keeps enough of a completion's tokens back to end its constrained text.

Owns the plan: a known ending of the text as it stands, never longer than the tokens that are left.
The search is `grammar.closing`; `sequence` asks before it takes a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from litellm_mlx.errors import BudgetError
from litellm_mlx.grammar.closing import Path, shortest_ending

if TYPE_CHECKING:
    from litellm_mlx.grammar.guide import Guide
    from litellm_mlx.types import Constraint

# The end is near when fewer tokens than these are left, or than `NEAR_ENDINGS` endings. Before,
# an ending is looked for now and then only, so that a schema which suddenly asks for a great deal
# is noticed while there is time.
NEAR_TOKENS = 128
NEAR_ENDINGS = 4
LOOK_EVERY_TOKENS = 32
# On the engine's thread other rows wait: 20 ms at most, and less where the known ending fits
# so closely that another is hardly shorter.
MAX_POINTS = 500
MAX_SEARCH_S = 0.02
CLOSE_FIT_TOKENS = 8
CLOSE_FIT_POINTS = 50
# To read a long ending takes time, a millisecond for 1,000 tokens and several where it does not
# hold any more, so there the next look is after one in so many of its tokens, or of the room left.
LOOK_SHARE_OF_PLAN = 64
LOOK_SHARE_OF_ROOM = 8
# Where no ending is known, a search that failed is not repeated at once; then it may take longer.
RETRY_TOKENS = 8
MAX_RETRY_POINTS = 2_000
MAX_RETRY_S = 0.15
# A text is not closed with so many tokens unused for a search that ended early: of a call whose
# argument is a URI, the ending takes 600 points or so, and free text before it ends at any place.
WORTH_A_SEARCH_TOKENS = 8
# With this many endings and tokens left, strings are closed, so that the model itself can still
# fill what is required after them.
TIGHT_ENDINGS = 2
TIGHT_TOKENS = 16


class Budget:
    """The tokens of one constrained completion and the ending that must fit into them.

    Args:
        guide: at the beginning of the text.
        constraint: what it enforces.
        max_tokens: of the whole completion, a stop token not counted.
        first_ending: of the constraint, see `grammar.closing`.

    Raises:
        BudgetError: even the ending from the beginning does not fit.
    """

    def __init__(
        self, guide: Guide, constraint: Constraint, max_tokens: int, first_ending: Path | None
    ) -> None:
        self._constraint = constraint
        self._max_tokens = max_tokens
        self._has_lost_plan = False
        self._plan = _from_start(guide, first_ending)
        if self._plan is not None and len(self._plan) > max_tokens:
            raise BudgetError.too_small(len(self._plan), max_tokens)
        self._next_look = self._look_after(max_tokens)

    @property
    def plan(self) -> Path | None:
        """The last ending that was found; while the end is near, of the text as it stands."""
        return self._plan

    def is_tight(self, num_left: int) -> bool:
        """There is little more left than an ending needs."""
        if self._plan is None or not self._is_near(num_left):
            return False
        return num_left <= TIGHT_ENDINGS * len(self._plan) + TIGHT_TOKENS

    def admits(self, guide: Guide, token_id: int, num_left: int) -> bool:
        """Say whether the text can still be ended after a token; if not, the plan must follow.

        Args:
            guide: before the token; it stays there.
            token_id: what was sampled.
            num_left: tokens that may come after it.
        """
        if num_left > self._next_look:
            return True
        plan = self._plan_after(guide, token_id, num_left)
        if plan is None and self._can_close(guide, num_left + 1):
            if num_left >= len(self._plan or ()) + WORTH_A_SEARCH_TOKENS:
                plan = self._plan_after(guide, token_id, num_left, is_thorough=True)
            if plan is None:
                return False
        self._has_lost_plan = plan is None
        self._plan = plan
        self._next_look = self._look_after(num_left)
        return True

    def _plan_after(
        self, guide: Guide, token_id: int, num_left: int, *, is_thorough: bool = False
    ) -> Path | None:
        """The old plan where it still holds, else one that is searched for."""
        for plan in self._plans_to_keep(token_id):
            if len(plan) <= num_left and guide.ends_with((token_id, *plan)):
                return plan
        known = self._plan or ()
        is_close = bool(known) and num_left < len(known) + CLOSE_FIT_TOKENS
        after = guide.copy()
        after.advance(token_id)
        max_points, max_search_s = MAX_POINTS, MAX_SEARCH_S
        if is_close and not is_thorough:
            max_points = CLOSE_FIT_POINTS
        elif is_thorough or self._has_lost_plan:
            max_points, max_search_s = MAX_RETRY_POINTS, MAX_RETRY_S
        return shortest_ending(
            after,
            self._constraint,
            limit=num_left,
            known=known,
            max_points=max_points,
            max_search_s=max_search_s,
        )

    def _plans_to_keep(self, token_id: int) -> Iterator[Path]:
        if self._plan is not None:
            if self._plan[:1] == (token_id,):
                yield self._plan[1:]
            yield self._plan
        yield ()

    def _can_close(self, guide: Guide, num_left: int) -> bool:
        plan = self._plan
        return (
            plan is not None
            and self._is_near(num_left)
            and len(plan) <= num_left
            and guide.ends_with(plan)
        )

    def _is_near(self, num_left: int) -> bool:
        return num_left <= NEAR_TOKENS + NEAR_ENDINGS * len(self._plan or ())

    def _look_after(self, num_left: int) -> int:
        """At how many tokens left to look for an ending again."""
        if not self._is_near(num_left):
            return num_left - LOOK_EVERY_TOKENS
        if self._plan is None:
            return num_left - RETRY_TOKENS
        room = num_left - len(self._plan)
        return num_left - min(len(self._plan) // LOOK_SHARE_OF_PLAN, room // LOOK_SHARE_OF_ROOM)


def _from_start(guide: Guide, first_ending: Path | None) -> Path | None:
    """The ending from the beginning, where a thinking block may come first."""
    if first_ending is None or guide.ends_with(first_ending):
        return first_ending
    plan = (*guide.forced(), *first_ending)
    return plan if guide.ends_with(plan) else None
