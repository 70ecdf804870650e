"""
Searches as their rules have them, and nothing clever: every document is looked at.

The oracle of the tests and of `ops/prove search`; it shares no line with the engine.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

Doc = Mapping[str, Any]
_MISSING = object()


def words_of(text: str) -> list[str]:
    words, word = [], ""
    for character in text + " ":
        if character.isalnum():
            word += character
        elif word:
            if len(word.encode()) < 32:
                words.append(word.lower())
            word = ""
    return words


def search(
    docs: list[Doc], field: str, text: str, filters: Mapping[str, Any]
) -> list[tuple[float, str]]:
    """Scores and ids of all documents that are found, best first; of equal ones the newest."""
    terms = words_of(text)[:16]
    texts = {
        doc["_id"]: words_of(value) for doc in docs if isinstance(value := doc.get(field), str)
    }
    average = sum(map(len, texts.values())) / max(1, len(docs))
    having: dict[str, int] = {}
    for words in texts.values():
        for word in set(words):
            having[word] = having.get(word, 0) + 1
    found = []
    for doc in docs:
        if any(doc.get(name, _MISSING) != value for name, value in filters.items()):
            continue
        words = texts.get(doc["_id"], [])
        score = 0.0
        alike = {w for w in words if terms and w != terms[-1] and w.startswith(terms[-1])}
        looked_for = [(w, 0.5 if w in alike else 1.0) for w in sorted(set(words) & set(terms))]
        for word, weight in [*looked_for, *((w, 0.5) for w in sorted(alike))]:
            n, count = having[word], words.count(word)
            idf = math.log(1 + (len(docs) - n + 0.5) / (n + 0.5))
            norm = 1.2 * (1 - 0.75 + 0.75 * len(words) / average)
            score += weight * idf * count * (1.2 + 1) / (count + norm)
        if score > 0:
            found.append((score, doc["_creationTime"], doc["_id"]))
    return [(score, doc_id) for score, _, doc_id in sorted(found, reverse=True)]


def nearest(
    docs: list[Doc], field: str, vector: list[float], filters: Mapping[str, Any]
) -> list[tuple[float, str]]:
    """Cosines and ids of documents with a vector of that length, best first; then the later id."""
    wanted = _unit(vector)
    found = []
    for doc in docs:
        value = doc.get(field)
        if not isinstance(value, list) or len(value) != len(vector):
            continue
        if any(doc.get(name, _MISSING) != kept for name, kept in filters.items()):
            continue
        cosine = _sum([a * b for a, b in zip(_unit(value), wanted, strict=True)])
        found.append((max(-1.0, min(1.0, cosine)), doc["_id"]))
    return sorted(found, reverse=True)


def _unit(vector: list[float]) -> list[float]:
    """Of length 1, in float32."""
    largest = max(map(abs, vector))
    if not largest:
        return [0.0] * len(vector)
    scaled = [number / largest for number in vector]
    length = math.sqrt(_sum([number * number for number in scaled]))
    return [float(struct.unpack("f", struct.pack("f", n / length))[0]) for n in scaled]


def _sum(numbers: list[float]) -> float:
    """In the order of numpy: eight sums beside each other, these in pairs, and what is left."""
    assert len(numbers) <= 128, "more are halved first"
    whole = len(numbers) // 8 * 8
    total = 0.0
    if whole:
        a, b, c, d, e, f, g, h = (_one_by_one(numbers[at:whole:8]) for at in range(8))
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    return _one_by_one([total, *numbers[whole:]])


def _one_by_one(numbers: list[float]) -> float:
    total = 0.0
    for number in numbers:
        total += number
    return total


MISSING = _MISSING
"""As the value of a filter: the field is missing."""
