"""The text tower of BiomedCLIP: PubMedBERT's tokens, its encoder and open_clip's projection, and what it is told.

Parameter names are those of the published weights, so that they load as they are. Written out here because open_clip
builds this tower with the transformers package, which nothing else needs; the tests hold it to that package's answers.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from inference.errors import BundleError
from inference.findings import Side

_GRADES = (
    "no osteophytes or joint space narrowing",
    "possible osteophytic lipping, doubtful narrowing",
    "definite osteophytes, possible narrowing",
    "multiple moderate osteophytes, definite narrowing, some sclerosis, possible deformity",
    "large osteophytes, marked narrowing, severe sclerosis, definite deformity",
)
_LONGEST = 100  # characters of a word; longer ones are unknown, as in the original WordPiece


def describe(side: Side | str, kl: int) -> str:
    """The standardised description of a knee: its side and its Kellgren-Lawrence grade 0..4, nothing of the person.

    Raises:
        ValueError: no such side ("L", "R") or grade.
    """
    if not 0 <= kl < len(_GRADES):
        raise ValueError(f"the Kellgren-Lawrence grade is {kl}; it is 0 to 4.")
    name = "left" if Side(side) is Side.LEFT else "right"
    return f"Weight-bearing frontal radiograph of the {name} knee. Kellgren-Lawrence grade {kl}: {_GRADES[kl]}."


@dataclass(frozen=True)
class BertShape:
    """Sizes of the encoder; the defaults are those of BERT-base, which PubMedBERT has."""

    vocabulary: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    positions: int = 512
    epsilon: float = 1e-12


class WordPiece:
    """BERT's tokeniser: words and punctuation, each in the longest pieces that the vocabulary has."""

    def __init__(self, vocabulary: Mapping[str, int], *, lower: bool = True, context: int = 256) -> None:
        missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
        if missing:
            raise BundleError(f"the vocabulary lacks {', '.join(missing)}: it is not that of a BERT.")
        self._vocabulary, self._lower, self._context = vocabulary, lower, context
        self.padding = vocabulary["[PAD]"]

    @classmethod
    def read(cls, folder: Path, context: int) -> "WordPiece | None":
        """From vocab.txt, else tokenizer.json, of a folder; None where neither is there.

        Raises:
            BundleError: the file is there and is not a WordPiece vocabulary.
        """
        lower = True
        try:
            if (settings := folder / "tokenizer_config.json").is_file():
                lower = bool(json.loads(settings.read_text("utf-8")).get("do_lower_case", True))
            if (words := folder / "vocab.txt").is_file():
                lines = words.read_text("utf-8").splitlines()
                return cls({word: number for number, word in enumerate(lines)}, lower=lower, context=context)
            if (whole := folder / "tokenizer.json").is_file():
                return cls(dict(json.loads(whole.read_text("utf-8"))["model"]["vocab"]), lower=lower, context=context)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"the vocabulary in {folder} cannot be read ({error}).") from error
        return None

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts to token numbers, int64 (N, context), padded; longer texts are cut."""
        rows = []
        for text in texts:
            pieces = [piece for word in self._words(text) for piece in self._pieces(word)][: self._context - 2]
            row = [self._vocabulary[token] for token in ("[CLS]", *pieces, "[SEP]")]
            rows.append(row + [self.padding] * (self._context - len(row)))
        return torch.tensor(rows, dtype=torch.int64)

    def _words(self, text: str) -> list[str]:
        if self._lower:
            text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        return "".join(f" {c} " if _is_punctuation(c) else c for c in text).split()

    def _pieces(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            found = (("##" if start else "") + word[start:end] for end in ends)
            piece = next((p for p in found if p in self._vocabulary), None)
            if piece is None or len(word) > _LONGEST:
                return ["[UNK]"]
            start += len(piece) - (2 if start else 0)
            pieces.append(piece)
        return pieces


def _is_punctuation(character: str) -> bool:
    """As BERT sees it: all ASCII that is neither letter, digit nor space, and what Unicode calls punctuation."""
    ascii_sign = 33 <= ord(character) <= 126 and not character.isalnum()
    return ascii_sign or unicodedata.category(character).startswith("P")


class TextTower(nn.Module):
    """BERT, its first token, and a projection of two layers: (N, context) token numbers to (N, D)."""

    def __init__(self, shape: BertShape, out: int, tokenise: WordPiece) -> None:
        super().__init__()
        self.transformer = _Bert(shape)
        middle = (shape.width + out) // 2
        self.proj = nn.Sequential(
            nn.Linear(shape.width, middle, bias=False), nn.GELU(), nn.Linear(middle, out, bias=False)
        )
        self.tokenise = tokenise

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return cast(torch.Tensor, self.proj(self.transformer(tokens, tokens != self.tokenise.padding)[:, 0]))


class _Bert(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.embeddings = _Embeddings(shape)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(shape) for _ in range(shape.layers))})

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.embeddings(tokens)
        for layer in cast(nn.ModuleList, self.encoder["layer"]):
            hidden = layer(hidden, mask)
        return cast(torch.Tensor, hidden)


class _Embeddings(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.width)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.token_type_embeddings = nn.Embedding(2, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        whole = self.word_embeddings(tokens) + self.position_embeddings(places) + self.token_type_embeddings.weight[0]
        return cast(torch.Tensor, self.LayerNorm(whole))


class _Joined(nn.Module):
    """What BERT calls an output: a linear layer, the shortcut, and the norm after both."""

    def __init__(self, wide: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(wide, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, values: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.LayerNorm(self.dense(values) + shortcut))


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.heads = shape.heads
        questions = {name: nn.Linear(shape.width, shape.width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(questions), "output": _Joined(shape.width, shape)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(shape.width, shape.inner)})
        self.output = _Joined(shape.inner, shape)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        number, length, width = hidden.shape
        asked = cast(nn.ModuleDict, self.attention["self"])
        query, key, value = (
            asked[name](hidden).view(number, length, self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        hidden = self.attention["output"](seen.transpose(1, 2).reshape(number, length, width), hidden)
        return cast(torch.Tensor, self.output(functional.gelu(self.intermediate["dense"](hidden)), hidden))
