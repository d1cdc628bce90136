"""Constraints on a completion's text: from a caller's wish to a token bitmask."""
