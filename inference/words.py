"""Words that descriptions use for knees, sides and views, in many languages, and how they are looked for.

Descriptions are free text and may hold names: what leaves this module is always an entry of `words.json`, never text
of a header. Words match whole tokens, after case folding and without accents; scripts without spaces match anywhere.
A letter that a broken character set turned into "?" inside of a word matches any letter.
"""

import importlib.resources
import json
import re
import unicodedata

_UNDECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d"})
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TOKEN = re.compile(r"(?:[^\W\d_]|\ufffd)+(?:\?+[^\W\d_]+)*|\d+")
_WORDLESS_SCRIPT = re.compile(r"[\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_MIN_LETTERS_BESIDE_WILDCARD = 4

_ELISION = re.compile(r"\b[dl]['\u2019](?=\w)")  # d'origine, l'arto: no "D" for droit
_TABLES: dict[str, dict[str, str]] = json.loads(
    importlib.resources.files("inference").joinpath("words.json").read_text(encoding="utf-8")
)


class Table:
    """One concept's words, sorted by how they are looked for."""

    def __init__(self, name: str, entries: frozenset[str]) -> None:
        self.name = name
        self.tokens: dict[str, str] = {}
        self.phrases: dict[str, str] = {}
        self.anywhere: dict[str, str] = {}
        for entry in sorted(entries):
            plain = " ".join(_TOKEN.findall(normalise(entry)))
            kind = self.anywhere if _WORDLESS_SCRIPT.search(plain) else self.phrases if " " in plain else self.tokens
            kind.setdefault(plain, entry)


def normalise(text: str) -> str:
    """Lower case without accents, one form per letter; tokens stay apart."""
    spread = unicodedata.normalize("NFKC", _CAMEL.sub(" ", text)).casefold().translate(_UNDECOMPOSED)
    bare = "".join(c for c in unicodedata.normalize("NFKD", spread) if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", bare)


def _words(name: str) -> list[str]:
    return [word for words in _TABLES[name].values() for word in words.split(", ")]


def _table(name: str) -> Table:
    return Table(name, frozenset(_words(name)))


KNEE, ELSEWHERE = _table("knee"), _table("elsewhere")
# Defined terms of Body Part Examined (PS3.16 Annex L) that are certainly not a knee, without spaces.
BODY_PARTS_ELSEWHERE = frozenset(_words("body part elsewhere"))
FRONTAL = _table("frontal")
OTHER_VIEWS = tuple(_table(name) for name in ("lateral", "tangential", "oblique", "tunnel", "long leg"))
RIGHT, LEFT, BILATERAL, PLURAL = (_table(name) for name in ("right", "left", "bilateral", "plural"))
# Short words that mean a side only in their own language: the side, and the knee words that show the language.
SIDE_IN_CONTEXT: dict[str, tuple[str, frozenset[str]]] = {
    "re": ("R", frozenset({"knie", "kniegelenk"})),
    "li": ("L", frozenset({"knie", "kniegelenk"})),
    "dx": ("R", frozenset({"ginocchio"})),
    "sx": ("L", frozenset({"ginocchio"})),
    "sin": ("L", frozenset({"ginocchio"})),
    "der": ("R", frozenset({"rodilla"})),
    "d": ("R", frozenset({"genou", "rodilla", "joelho"})),
    "g": ("L", frozenset({"genou"})),
    "hö": ("R", frozenset({"knä"})),
    "vä": ("L", frozenset({"knä"})),
    "oik": ("R", frozenset({"polvi"})),
    "vas": ("L", frozenset({"polvi"})),
    "sağ": ("R", frozenset({"diz"})),
    "sol": ("L", frozenset({"diz"})),
    "bal": ("L", frozenset({"térd"})),
}
# Beside these a short word names no side: "JOELHO D/E" and "RODILLA D/I" are both knees, "DX" may be Digital X-ray.
_SPOILED_BY = {"d": ("e", "i"), "dx": ("sin", "sn"), "sin": ("dx",)}
# English knees written in one word with what stands before and after. A letter behind would be "kneel".
_BEFORE = "ap|pa|lat|bilat|both|left|right|lt|rt"
_RUN_TOGETHER = re.compile(
    rf"({_BEFORE})?([lr]?knee|knees)({_BEFORE}|lateral|frontal|bilateral|obl|oblique|sunrise|skyline|merchant|tunnel)?"
)
# Legs without their knee: "below knee" speaks of a stump or of the lower leg.
_NOT_THE_KNEE = re.compile(r" (?:below|above) knee ")


class Text:
    """One description, taken apart once and asked about many tables."""

    def __init__(self, text: str) -> None:
        # Descriptions are LO (64 characters) or a little more; a megabyte in one is an attack on our time.
        folded = _ELISION.sub("", normalise(text[:512]))
        self._compact = "".join(folded.split())
        self._tokens = [part for token in _TOKEN.findall(folded) for part in _apart(token)]
        self._line = _NOT_THE_KNEE.sub(" ", f" {' '.join(self._tokens)} ")
        self._broken = [_pattern(token) for token in self._tokens if _is_broken(token)]

    def matches(self, table: Table) -> tuple[str, ...]:
        """The entries of `table` that stand in the text, sorted."""
        found = {table.tokens[token] for token in self._line.split() if token in table.tokens}
        found |= {entry for phrase, entry in table.phrases.items() if f" {phrase} " in self._line}
        found |= {entry for part, entry in table.anywhere.items() if part in self._compact}
        for pattern in self._broken:
            found |= {entry for token, entry in table.tokens.items() if pattern.fullmatch(token)}
        return tuple(sorted(found))

    def has_token(self, token: str) -> bool:
        """Whether `token` stands alone in the text."""
        return f" {' '.join(_TOKEN.findall(normalise(token)))} " in self._line

    def sides_in_context(self) -> tuple[str, ...]:
        """ "L" or "R" where a short word means a side in the language that the knee's word shows."""
        knees = set(self.matches(KNEE))
        return tuple(
            side
            for word, (side, shown) in SIDE_IN_CONTEXT.items()
            if knees & shown and self.has_token(word) and not self._spoiled(word)
        )

    def _spoiled(self, word: str) -> bool:
        counted = re.search(rf" \d+ {re.escape(word)} ", self._line) is not None  # "3D"
        return counted or any(self.has_token(other) for other in _SPOILED_BY.get(word, ()))


def _apart(token: str) -> list[str]:
    """The words of a token such as "KNEEAP" or "RKNEELAT"; any other token stays whole ("kneeling")."""
    found = _RUN_TOGETHER.fullmatch(token)
    return [part for part in found.groups() if part] if found else [token]


def _is_broken(token: str) -> bool:
    letters = sum(c not in "?\ufffd" for c in token)
    return letters < len(token) and letters >= _MIN_LETTERS_BESIDE_WILDCARD


def _pattern(token: str) -> re.Pattern[str]:
    return re.compile("".join("." if c in "?\ufffd" else re.escape(c) for c in token))


def said(table: Table, word: str) -> str:
    """How a found word stands in a reason or in evidence: ASCII only, so other scripts are named by their concept."""
    return f'"{word}"' if word.isascii() else f'a word for "{table.name}"'
