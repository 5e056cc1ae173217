"""A report as one HTML page: self-contained, without a script, and without a request to anywhere.

Its policy (Content Security Policy) forbids all but its own style sheet, by hash, and pictures inside of the page.
Sections are made of plain text; whatever comes from data is escaped here and nowhere else.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

STYLE: Final = """
body { margin: 0 auto; max-width: 1140px; padding: 0 20px 30px; background: #fff; color: #14161a;
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { margin: 18px 0 4px; font-size: 30px; line-height: 1.2; }
h2 { margin: 38px 0 8px; font-size: 21px; border-bottom: 1px solid #c3c8d0; }
h3 { margin: 20px 0 4px; font-size: 16px; }
p { margin: 6px 0; max-width: 62em; overflow-wrap: anywhere; }
ul { margin: 6px 0; padding-left: 22px; max-width: 62em; }
a { color: #14506e; }
nav { margin: 12px 0; font-size: 14px; }
nav a { display: inline-block; margin-right: 16px; }
.mark { margin: 10px 0 0; padding: 6px 12px; max-width: none; background: #14161a; color: #ffd040; font-weight: 700; }
.synthetic { background: #8f1500; color: #fff; }
.verdict { padding: 8px 14px; border-left: 6px solid #0072b2; background: #f2f6fa; }
.fine, figcaption, caption { color: #4a505a; font-size: 14px; }
code { font: 14px/1.5 "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { margin: 6px 0; padding: 8px 12px; background: #f2f4f7; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 10px 0 18px; }
img { display: block; max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { margin: 8px 0 4px; border-collapse: collapse; font-size: 14px; line-height: 1.35; }
caption { padding-bottom: 4px; text-align: left; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid #dfe2e7; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #14161a; vertical-align: bottom; }
tbody th { font-weight: 600; max-width: 22em; overflow-wrap: anywhere; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
td small, th small { display: block; color: #4a505a; font-size: 12px; font-weight: 400; }
tr.baseline th, tr.baseline td { background: #f5f6f8; }
tr.elsewhere th, tr.elsewhere td { background: #fdf3e3; font-style: italic; }
td.better { font-weight: 700; color: #00563f; }
td.worse { font-weight: 700; color: #8f1500; }
td.few { color: #6b717b; }
@media print { body { max-width: none; padding: 0; font-size: 12px; } h2, h3 { break-after: avoid; }
  nav { display: none; }
  figure, tr, .verdict { break-inside: avoid; } .scroll { overflow: visible; } table { font-size: 10px; }
  td small, th small { font-size: 9px; } th, td { padding-right: 8px; }
  .mark, tr th, tr td { print-color-adjust: exact; } @page { margin: 14mm; } }
"""
POLICY: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    f"{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
DPI: Final = 150  # of pictures
RESEARCH_MARK: Final = "RESEARCH ONLY - NOT FOR DIAGNOSIS"


@dataclass(frozen=True)
class Text:
    """A paragraph. kind: "", "fine", "verdict", or "mark", "mark synthetic"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading below that of the section."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Commands, a line each."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what stands small below it, and "better", "worse", "few" or nothing."""

    text: str
    small: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """A row: its title and cells; kind "baseline", "elsewhere" (published on other data) or nothing."""

    title: Cell
    cells: Sequence[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a title in each row and column."""

    titles: Sequence[Cell]
    rows: Sequence[Row]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG, the name of its file, what it shows to whom cannot see it, and its caption."""

    name: str
    png: bytes = field(repr=False)
    alt: str
    caption: str


Part = Text | Heading | Points | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it. name: of its place in the page."""

    name: str
    title: str
    parts: Sequence[Part]


def render(title: str, head: Sequence[Part], sections: Sequence[Section], foot: Sequence[Part]) -> str:
    """The whole page."""
    links = " ".join(f'<a href="#{escape(one.name)}">{escape(one.title)}</a>' for one in sections)
    body = [f"<h1>{escape(title)}</h1>", *map(_part, head), f"<nav>{links}</nav>"]
    for section in sections:
        body.append(f'<section><h2 id="{escape(section.name)}">{escape(section.title)}</h2>')
        body += [*map(_part, section.parts), "</section>"]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="referrer" content="no-referrer">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Genu: {escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join([*body, "<footer>", *map(_part, foot), "</footer>"])
        + "\n</body>\n</html>\n"
    )


def pictures_of(sections: Iterable[Section]) -> list[Picture]:
    """Every picture of the sections."""
    return [part for section in sections for part in section.parts if isinstance(part, Picture)]


def _part(part: Part) -> str:
    match part:
        case Text():
            return f"<p{_class(part.kind)}>{escape(part.text)}</p>"
        case Heading():
            return f"<h3>{escape(part.text)}</h3>"
        case Points():
            return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in part.texts)}</ul>"
        case Code():
            return f"<pre><code>{escape(chr(10).join(part.lines))}</code></pre>"
        case Table():
            return _table(part)
        case Picture():
            data = base64.b64encode(part.png).decode()
            width = int.from_bytes(part.png[16:20], "big") * 96 // DPI  # IHDR, PNG specification 11.2.2
            image = f'<img src="data:image/png;base64,{data}" alt="{escape(part.alt)}" width="{width}">'
            return f"<figure>{image}<figcaption>{escape(part.caption)}</figcaption></figure>"


_ROW: Final = ' scope="row"'


def _table(table: Table) -> str:
    head = "".join(_cell("th", cell, ' scope="col"') for cell in table.titles)
    rows = "".join(
        f"<tr{_class(row.kind)}>{_cell('th', row.title, _ROW)}{''.join(_cell('td', c) for c in row.cells)}</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(tag: str, cell: Cell, scope: str = "") -> str:
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    text = escape(cell.text)
    if tag == "th":  # long names break where their parts end
        text = text.replace("/", "/<wbr>").replace("_", "_<wbr>")
    return f"<{tag}{scope}{_class(cell.kind)}>{text}{small}</{tag}>"


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
