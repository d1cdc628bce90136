"""The way out of a half-written text: a short path of tokens to a point where it may end.

Owns the search. It goes by what sampling goes by (which tokens may come next, may the text end) on
copies of a guide, so an ending holds for every kind of constraint and within every limit. Which
tokens are tried first is `closing_tokens`, which texts `landmarks`; when an ending is used is the
engine's `budget`.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.grammar.closing_tokens import closing_tokens, has, num_allowed
from litellm_mlx.grammar.landmarks import Landmarks, landmarks_of

if TYPE_CHECKING:
    from litellm_mlx.grammar.compiler import Index
    from litellm_mlx.grammar.guide import Guide
    from litellm_mlx.types import Constraint

Path = tuple[int, ...]

NO_LIMIT = 2**31
# Over 998 dev schemas, from their beginning, the median ending took 5 points, the 99th percentile
# 72, the hardest 737, at 0.2 ms a point (2 cores of an AMD EPYC, 2026-11-21).
MAX_POINTS = 4_000
MAX_SEARCH_S = 0.25
# Points that are looked at whatever the time: a garbage collection of a large heap alone takes
# 170 ms, and a text that is given up for it is closed early.
MIN_POINTS = 30
MAX_POINTS_TO_SHORTEN = 200
# Of a known ending that is longer, only the parts that leave out so few of its first tokens are
# tried: each try reads it to its end.
MAX_KNOWN_TRIES = 64
# A way that went round so often is followed on as long as nothing changes: items are counted there.
MIN_ROUNDS = 3
MAX_ROUND_POINTS = 64
MAX_COUNTED_TOKENS = 16_384
# With fewer allowed tokens a landmark could not shorten the way.
MIN_CHOICE = 3

# Costs are counted in better branches passed over; see `_Search`.
STEP_COST = 0.02
STILL_COST = 0.5
# First as if forced text were always worth it, which ends in a circle in grammars such as
# `"a" ("b" "a")* "c"`; so then once more as if it were worth little.
LAP_COSTS = (-3.0, 0.01)


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """A place in the text: the tokens to it, and what tells it from other places.

    `num_laps` counts stretches of forced text on the way, `last_forced` is the last of them: in
    JSON the name of a property. `look` is a hash of the bitmask, the open containers and the
    guide's own state, where it shows one.
    """

    guide: Guide
    path: Path
    parent: _Point | None
    num_laps: int
    last_forced: Path
    look: int
    branches: tuple[Path, ...]


@dataclass(frozen=True, slots=True, order=True)
class _Branch:
    """A way to go on from a point; `detour` is its cost since the last forced text."""

    cost: float
    num_tokens: int
    order: int
    detour: float = field(compare=False)
    origin: _Point | None = field(compare=False)
    tokens: Path = field(compare=False)


class _Search:
    """Takes the likeliest branch again and again, and the runners-up when that leads nowhere.

    A branch costs its rank at its point, and more where the bitmask has not changed. Forced text
    is progress: the detours before it are forgiven, and `lap_cost` is added instead.
    """

    def __init__(
        self, guide: Guide, landmarks: Landmarks, *, limit: int, known: Path, lap_cost: float
    ) -> None:
        self._start = guide
        self._landmarks = landmarks
        self._limit = limit
        self._known = known
        self._lap_cost = lap_cost
        self._tokens = closing_tokens(guide.vocabulary)
        self._row = np.zeros(guide.vocabulary.num_bitmask_words, dtype=np.int32)
        self._waiting: list[_Branch] = []
        self._order = itertools.count()
        self._seen: dict[tuple[int, int, Path], list[_Point]] = {}
        self._endless: set[int] = set()  # looks of points whose way round has no end in sight

    def run(self, max_points: int, deadline_s: float) -> Path | None:
        """Give an ending of at most `limit` tokens; None where none was found."""
        self._waiting = [_Branch(0.0, 0, next(self._order), 0.0, None, ())]
        for number in range(max_points):
            is_late = number >= MIN_POINTS and time.thread_time() > deadline_s
            if is_late or not self._waiting:
                return None
            branch = heapq.heappop(self._waiting)
            found = self._follow(branch)
            if isinstance(found, tuple):
                return found
            if found is None or self._is_known(found):
                continue
            self._add_branches(found, branch.detour)
            further = self._counted_out(found)
            if isinstance(further, tuple):
                return further
            if further is not None and not self._is_known(further):
                self._add_branches(further, 0.0)  # all those rounds were progress
        return None

    def _follow(self, branch: _Branch) -> _Point | Path | None:
        """Go down a branch as far as the bitmask allows it, and through the forced text after."""
        origin = branch.origin
        guide = self._start.copy() if origin is None else origin.guide.copy()
        path: Path = () if origin is None else origin.path
        try:
            for position, token in enumerate(branch.tokens):
                if position > 0 and guide.forced():
                    break  # the rest comes by itself, perhaps in other tokens
                if position > 0 and not self._allows(guide, token):
                    return None
                guide.advance(token)
                path = (*path, token)
            return self._reach(guide, path, origin)
        except LiteLLMMLXError:  # the grammar engine gave up there
            return None

    def _reach(self, guide: Guide, path: Path, parent: _Point | None) -> _Point | Path | None:
        """Go on through forced text: the point after it, or the path where the text may end."""
        num_laps, last_forced = (parent.num_laps, parent.last_forced) if parent else (0, ())
        while not guide.is_accepting and (forced := tuple(guide.forced())):
            num_laps += 1
            last_forced = forced if len(forced) > 1 else last_forced
            path += forced
            for token in forced:
                guide.advance(token)
        if len(path) > self._limit:
            return None
        if guide.is_accepting:
            return path
        guide.fill_bitmask(self._row)
        place = guide.json_place
        rest = self._rest_of_known(guide, len(path))
        if rest is not None:
            return path + rest
        look = hash((self._row.tobytes(), place, guide.state))
        branches = self._tokens.branches(self._row, place, self._landmarks.key_starts)
        tails = tuple(self._tails(guide))  # before the bitmask is used for something else
        return _Point(
            guide, path, parent, num_laps, last_forced, look, (*tails, *((t,) for t in branches))
        )

    def _rest_of_known(self, guide: Guide, num_tokens: int) -> Path | None:
        """The end of an ending that was known before, where it fits here too."""
        starts = range(len(self._known))
        for start in reversed(starts) if len(starts) <= MAX_KNOWN_TRIES else starts:
            if start == MAX_KNOWN_TRIES:
                return None
            rest = self._known[start:]
            if num_tokens + len(rest) > self._limit:
                continue
            if has(self._row, rest[0]) and guide.ends_with(rest):
                return rest
        return None

    def _counted_out(self, point: _Point) -> _Point | Path | None:
        """Go the way round that led here as often as it stays the same; as `_reach`.

        Required items may be hundreds, and each alike. Where no end of them is in sight, it is not
        them that the way goes round.
        """
        before, tokens = _round_to(point)
        if before is None or point.look in self._endless:
            return None
        usual = self._looks(before.guide.copy(), tokens)
        most = (min(self._limit, MAX_COUNTED_TOKENS) - len(point.path)) // len(tokens)
        guide, num_rounds, times, is_growing = point.guide, 0, 1, True
        while times > 0 and num_rounds < most:
            times = min(times, most - num_rounds)
            tried = guide.copy()
            if tried.allows(tokens * times) and self._goes_round(tried, tokens, times, usual):
                guide, num_rounds = tried, num_rounds + times
            else:
                is_growing = False
            times = times * 2 if is_growing else times // 2
        if num_rounds >= most:
            self._endless.add(point.look)
            return None
        if num_rounds == 0:
            return None
        num_laps = point.num_laps + num_rounds * (point.num_laps - before.num_laps)
        path = point.path + tokens * num_rounds
        return self._reach(guide, path, replace(point, parent=point, num_laps=num_laps))

    def _goes_round(self, guide: Guide, tokens: Path, times: int, usual: list[int]) -> bool:
        """Move a guide so many rounds on; whether the last one was like the others."""
        for token in tokens * (times - 1):
            guide.advance(token)
        return self._looks(guide, tokens) == usual

    def _looks(self, guide: Guide, tokens: Path) -> list[int]:
        """What the guide allows before each token, and after the last; it is there then."""
        looks = [self._look(guide)]
        for token in tokens:
            guide.advance(token)
            looks.append(self._look(guide))
        return looks

    def _look(self, guide: Guide) -> int:
        guide.fill_bitmask(self._row)
        place = (guide.json_place, guide.state, guide.is_accepting)
        return hash((self._row.tobytes(), place))

    def _tails(self, guide: Guide) -> Iterator[Path]:
        """Texts that complete the part of the text that the guide is in."""
        place = guide.json_place
        if place is not None:
            if not place.is_in_string or self._tokens.may_close_string(self._row):
                return
        if num_allowed(self._row) < MIN_CHOICE:
            return
        for tokens in self._landmarks.tails_in_tokens(guide.vocabulary):
            if has(self._row, tokens[0]) and guide.allows(tokens):
                yield tokens

    def _allows(self, guide: Guide, token: int) -> bool:
        guide.fill_bitmask(self._row)
        return has(self._row, token)

    def _is_known(self, point: _Point) -> bool:
        """Another path came to what looks like the same place, in as few tokens."""
        seen = self._seen.setdefault((point.look, point.num_laps, point.last_forced), [])
        if any(len(p.path) <= len(point.path) and not _is_before(p, point) for p in seen):
            return True
        seen.append(point)
        return False

    def _add_branches(self, point: _Point, detour: float) -> None:
        parent = point.parent
        if parent is None or point.num_laps > parent.num_laps:
            detour = 0.0
        elif point.look == parent.look:
            detour += STILL_COST
        laps = point.num_laps * self._lap_cost
        for rank, tokens in enumerate(point.branches):
            own = detour + rank + STEP_COST
            num_tokens = len(point.path) + len(tokens)
            branch = _Branch(own + laps, num_tokens, next(self._order), own, point, tokens)
            heapq.heappush(self._waiting, branch)


def shortest_ending(
    guide: Guide,
    constraint: Constraint,
    *,
    limit: int = NO_LIMIT,
    known: Path = (),
    max_points: int = MAX_POINTS,
    max_search_s: float = MAX_SEARCH_S,
) -> Path | None:
    """Find tokens after which the text may end; short, though not always the shortest.

    Args:
        guide: where the text is now; it stays there.
        constraint: what the guide enforces.
        limit: tokens that the ending may have.
        known: an ending of the text as it was some tokens ago, whose end will often do.
        max_points: places in the text to look at.
        max_search_s: seconds of this thread's processor time to spend; the machine's load changes
            nothing.

    Returns:
        The tokens, a stop token not among them; `()` where the text may end at once; `None` where
        none was found, which says nothing certain.

    Cost: about 1 ms at the median of the dev schemas, from their beginning.
    """
    landmarks, start_s = landmarks_of(constraint), time.thread_time()
    for share, lap_cost in enumerate(LAP_COSTS, start=1):
        search = _Search(guide, landmarks, limit=limit, known=known, lap_cost=lap_cost)
        deadline_s = start_s + max_search_s * share / len(LAP_COSTS)
        found = search.run(max_points // len(LAP_COSTS), deadline_s)
        if found is not None:
            return found
    return None


def first_ending(index: Index, constraint: Constraint, *, limit: int = NO_LIMIT) -> Path | None:
    """Find an ending from the beginning of the text, once per constraint and vocabulary.

    One that is longer than `limit` is the shortest that was found in a longer search; a request
    with fewer tokens cannot be served. Any thread may call it.

    Cost: as `shortest_ending`; about 15 ms where the first one found does not fit.
    """
    guide = index.guide()
    known = landmarks_of(constraint).first_endings
    key = guide.vocabulary.fingerprint
    if key not in known:
        known[key] = shortest_ending(guide, constraint)
    ending = known[key]
    if ending is not None and len(ending) > limit:
        ending = known[key] = _shortened(ending, guide, constraint)
    return ending


def _shortened(ending: Path, guide: Guide, constraint: Constraint) -> Path:
    """Look for shorter endings as long as there are some."""
    points = MAX_POINTS_TO_SHORTEN
    while True:
        limit = len(ending) - 1
        shorter = shortest_ending(guide, constraint, limit=limit, max_points=points)
        if shorter is None:
            return ending
        ending = shorter


def _round_to(point: _Point) -> tuple[_Point | None, Path]:
    """The last point that looked the same, and the tokens from it, if they came several times."""
    before = point.parent
    for _ in range(MAX_ROUND_POINTS):
        if before is None or before.look == point.look:
            break
        before = before.parent
    if before is None or before.look != point.look:
        return None, ()
    tokens = point.path[len(before.path) :]
    rounds = tokens * MIN_ROUNDS
    return (before, tokens) if point.path[-len(rounds) :] == rounds else (None, ())


def _is_before(earlier: _Point, point: _Point | None) -> bool:
    while point is not None and point is not earlier:
        point = point.parent
    return point is not None
