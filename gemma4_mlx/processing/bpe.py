"""Byte-pair encoding over tables that are used as they lie: text ↔ token ids for tokenizers of Gemma's kind.

The library `tokenizers` builds its hash maps anew at every start, seconds for Gemma's 262,144 tokens and 514,906
merges. Here the same merges lie in sorted arrays, which a file holds as they are (`bpe_file`), and are searched there.
What comes out is what the library gives: pairs are merged lowest rank first, and from the left where ranks are equal
(Sennrich et al. 2016, https://aclanthology.org/P16-1162; the library's `models/bpe/word.rs`).

A text is cut first where no merge can ever join the characters on both sides, mostly between words. Each stretch is
merged by itself and remembered, so that a long text costs little more than its different words.

Names of methods are the library's, because `tokenizer.Tokenizer` holds either of the two.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_SPACE = "▁"
CHARACTER_BITS = 21  # Unicode ends at U+10FFFF
_REMEMBERED = 100_000  # stretches, then pairs; a book has some 10,000 different words
_GONE = -1
_SHORT = 64  # characters of a stretch worth remembering


@dataclass(frozen=True)
class Tables:
    """A tokenizer as flat arrays; n tokens, m merges.

    Attributes:
        text: UTF-8 of all tokens in a row, by id; starts `[n + 1]`: where each begins.
        by_text: the ids in the order of their UTF-8, `[n]`.
        characters, character_ids: code points that are tokens, ascending, and their ids.
        byte_ids: ids of `<0x00>` to `<0xFF>`, `[256]`.
        pairs: `left << 32 | right` of each merge, ascending, `[m]`; ranks, merged: its rank, and the id it makes.
        joints: `last << 21 | first`, ascending: the characters that meet where some merge joins two tokens.
        added_ids, added_special: tokens found in a text before any merging, and which of them are control tokens.
    """

    text: np.ndarray
    starts: np.ndarray
    by_text: np.ndarray
    characters: np.ndarray
    character_ids: np.ndarray
    byte_ids: np.ndarray
    pairs: np.ndarray
    ranks: np.ndarray
    merged: np.ndarray
    joints: np.ndarray
    added_ids: np.ndarray
    added_special: np.ndarray


class Encoding(NamedTuple):
    """What `encode` returns."""

    ids: list[int]


class Added(NamedTuple):
    """A token that is found in a text before any merging."""

    content: str
    special: bool


class BPE:
    """A tokenizer of Gemma's kind.

    Args:
        special: tokens that are control tokens besides those the tables name; unknown ones are passed over.
    """

    def __init__(self, tables: Tables, special: Iterable[str] = ()) -> None:
        self._tables = tables
        # Lists and memory views answer single look-ups many times faster than arrays.
        self._text = tables.text.data
        self._starts = tables.starts.data
        self._pairs = tables.pairs.data
        self._byte_ids = tables.byte_ids.tolist()
        self._byte_of = {id_: byte for byte, id_ in enumerate(self._byte_ids)}
        self._added = {
            id_: Added(self.id_to_token(id_), bool(control))
            for id_, control in zip(tables.added_ids.tolist(), tables.added_special.tolist(), strict=True)
        }
        self._id_of: dict[str, int | None] = {}
        known = ((self.token_to_id(token), token) for token in special)
        self._added |= {id_: Added(token, True) for id_, token in known if id_ is not None}
        # For `_added_in`: what a text is searched for.
        self._added_id = {added.content: id_ for id_, added in self._added.items()}
        lengths: dict[str, set[int]] = {}
        for content in self._added_id:
            lengths.setdefault(content[0], set()).add(len(content))
        self._added_lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._added_first = re.compile(f"[{re.escape(''.join(lengths))}]" if lengths else r"(?!)")
        self._character_id: dict[str, int | None] = {}
        self._merge_of: dict[int, tuple[int, int] | None] = {}
        self._ids_of: dict[str, list[int]] = {}

    def encode(self, text: str, literal: bool = False) -> Encoding:
        """Token ids of a text; tokens of a template around it are never added.

        Args:
            literal: control tokens spelled in it are mere text.
        """
        ids: list[int] = []
        done = 0
        for start, end, token in self._added_in(text, literal):
            ids += self._encode_plain(text[done:start])
            ids.append(token)
            done = end
        return Encoding(ids + self._encode_plain(text[done:]))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; ids beyond the vocabulary write nothing.

        Bytes in a row are read as UTF-8, and if they are not, each is a U+FFFD.
        """
        pieces: list[str] = []
        waiting = bytearray()
        for id_ in ids:
            if id_ < 0:
                raise OverflowError(f"a token id is never negative: {id_}")
            if id_ >= self.get_vocab_size() or (
                skip_special_tokens and id_ in self._added and self._added[id_].special
            ):
                continue
            if (byte := self._byte_of.get(id_)) is not None:
                waiting.append(byte)
                continue
            pieces += (_from_bytes(waiting), self.id_to_token(id_).replace(_SPACE, " "))
            waiting.clear()
        return "".join([*pieces, _from_bytes(waiting)])

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None if there is none spelled so."""
        if token not in self._id_of:
            self._id_of[token] = self._search(token)
        return self._id_of[token]

    def id_to_token(self, id_: int) -> str:
        """The token of an id."""
        return bytes(self._text[self._starts[id_] : self._starts[id_ + 1]]).decode()

    def get_vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self._starts) - 1

    def get_added_tokens_decoder(self) -> dict[int, Added]:
        """Tokens found before any merging, by id."""
        return self._added

    def spellings(self) -> tuple[list[int], list[bytes]]:
        """All ids in the order of their tokens' UTF-8, and the bytes each writes as a part of a text.

        Control tokens, and others that are found before any merging and are names in angle brackets, write none.
        """
        text, starts, order = self._tables.text, self._tables.starts, self._tables.by_text
        marks = np.flatnonzero((text[:-2] == 0xE2) & (text[1:-1] == 0x96) & (text[2:] == 0x81))  # ▁ in UTF-8
        begins = starts - 2 * np.searchsorted(marks, starts)
        written = text.tobytes().replace(_SPACE.encode(), b" ")
        ends = begins[order + 1].tolist()
        spelled = [written[start:end] for start, end in zip(begins[order].tolist(), ends, strict=True)]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        for id_, byte in self._byte_of.items():
            spelled[place[id_]] = bytes([byte])
        for id_, added in self._added.items():
            if added.special or (added.content[0] == "<" and added.content[-1] == ">"):
                spelled[place[id_]] = b""
        return order.tolist(), spelled

    def spell(self, text: str) -> list[int]:
        """Ids whose `spellings` are exactly this text, whatever tokens it names."""
        # Its own id would be read as a space.
        marks = [self._byte_ids[byte] for byte in _SPACE.encode()]
        first, *others = text.split(_SPACE)
        return self._encode_plain(first) + [id_ for other in others for id_ in marks + self._encode_plain(other)]

    def _search(self, token: str) -> int | None:
        spelled, order = token.encode("utf-8", "surrogatepass"), self._tables.by_text
        starts, text = self._starts, self._text

        def spelling(id_: int) -> bytes:
            return bytes(text[starts[id_] : starts[id_ + 1]])

        at = bisect_left(order, spelled, key=spelling)
        return int(order[at]) if at < len(order) and spelling(order[at]) == spelled else None

    def _added_in(self, text: str, literal: bool) -> Iterator[tuple[int, int, int]]:
        """Start, end and id of the added tokens in a text: the first, and of several there the longest."""
        done = 0
        for found in self._added_first.finditer(text):
            start = found.start()
            if start < done:
                continue
            for length in self._added_lengths[found[0]]:
                id_ = self._added_id.get(text[start : start + length])
                if id_ is not None:
                    done = start + length
                    # One that counts as text still covers its letters: none begins inside it.
                    if not (literal and self._added[id_].special):
                        yield start, done, id_
                    break

    def _encode_plain(self, text: str) -> list[int]:
        """Ids of a text without added tokens."""
        if not text:
            return []
        text = text.replace(" ", _SPACE)
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
        meeting, joints = codes[:-1] << CHARACTER_BITS | codes[1:], self._tables.joints
        at = np.searchsorted(joints, meeting)
        joined = np.zeros(len(meeting), bool)
        inside = at < len(joints)
        joined[inside] = joints[at[inside]] == meeting[inside]
        ids: list[int] = []
        for start, end in pairwise([0, *(np.flatnonzero(~joined) + 1).tolist(), len(text)]):
            stretch = text[start:end]
            known = self._ids_of.get(stretch)
            if known is None:
                known = self._merge(stretch)
                if len(stretch) <= _SHORT:
                    _remember(self._ids_of, stretch, known)
            ids += known
        return ids

    def _merge(self, stretch: str) -> list[int]:
        """Ids of a text that may be one token."""
        ids = [id_ for character in stretch for id_ in self._first_ids(character)]
        last = len(ids) - 1
        # A token that is merged into its left neighbour becomes _GONE; the others know their neighbours.
        slots = list(ids)
        before, after = list(range(-1, last)), list(range(1, last + 2))
        waiting: list[tuple[int, int, int, int, int]] = []

        def weigh(left: int, right: int) -> None:
            merge = self._look_up(slots[left], slots[right])
            if merge is not None:
                heapq.heappush(waiting, (merge[0], left, slots[left], slots[right], merge[1]))

        for at in range(last):
            weigh(at, at + 1)
        while waiting:
            _, left, first, second, made = heapq.heappop(waiting)
            right = after[left]
            if slots[left] != first or right > last or slots[right] != second:
                continue  # one of the two has been merged with another since
            slots[left], slots[right] = made, _GONE
            after[left] = after[right]
            if after[left] <= last:
                before[after[left]] = left
                weigh(left, after[left])
            if before[left] >= 0:
                weigh(before[left], left)
        return [id_ for id_ in slots if id_ != _GONE]

    def _first_ids(self, character: str) -> list[int]:
        """A character's id; ids of its bytes if it is no token."""
        if character not in self._character_id:
            characters = self._tables.characters
            at = int(np.searchsorted(characters, ord(character)))
            known = at < len(characters) and characters[at] == ord(character)
            _remember(self._character_id, character, int(self._tables.character_ids[at]) if known else None)
        id_ = self._character_id[character]
        return [self._byte_ids[byte] for byte in character.encode()] if id_ is None else [id_]

    def _look_up(self, left: int, right: int) -> tuple[int, int] | None:
        """Rank and id of what two tokens make, None if they are never merged."""
        pair = left << 32 | right
        if pair not in self._merge_of:
            at = bisect_left(self._pairs, pair)
            known = at < len(self._pairs) and self._pairs[at] == pair
            _remember(
                self._merge_of, pair, (int(self._tables.ranks[at]), int(self._tables.merged[at])) if known else None
            )
        return self._merge_of[pair]


def _remember(known: dict, key: object, value: object) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value


def _from_bytes(spelled: bytearray) -> str:
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}" * len(spelled)
