"""One HTML page about one image or MR series: self-contained, without a script, and without a request to anywhere.

Its policy (Content Security Policy) forbids all but its own style sheet, by hash, and pictures inside of the page.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import Final

from PIL import Image

from dicom_templates.drawing import Colour, Rgb, model_line
from dicom_templates.film_drawing import KNEE, LETTER, PLACE, draw_film, legend_of
from dicom_templates.identity import RESEARCH_MARK, SIDE_WORDS, SYNTHETIC_MARK
from dicom_templates.mr_words import slice_words
from inference.findings import KneeFinding, Step
from plugin import explain, explain_mr
from plugin.explain import Page

FILM: Final = (1100, 900)  # the most columns and rows of the film's picture
_PEAK: Final = 480  # of the picture of a slice
_PART: Final = 260  # the longer side of the picture of a knee
_BAR: Final = 160
_NAMES: Final = {KNEE: "knee", PLACE: "place", LETTER: "letter"}


def _css(colour: Colour) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in colour)


STYLE: Final = f"""
body {{ margin: 0 auto; max-width: 1140px; padding: 0 20px 20px; background: #fff; color: #14161a;
  font: 16px/1.45 system-ui, sans-serif; }}
h1 {{ margin: 18px 0 4px; font-size: 30px; line-height: 1.2; }}
h2 {{ margin: 28px 0 8px; font-size: 20px; border-bottom: 1px solid #c3c8d0; }}
h3 {{ margin: 14px 0 4px; font-size: 16px; }}
p {{ margin: 4px 0; }}
.mark {{ margin: 10px 0 0; padding: 6px 12px; background: #14161a; color: #ffd040; font-weight: 700; }}
.synthetic {{ background: #8f1500; color: #fff; }}
.fine {{ color: #4a505a; font-size: 14px; overflow-wrap: anywhere; }}
.nofilm {{ padding: 40px 20px; background: #e9ebef; }}
img {{ display: block; max-width: 100%; height: auto; background: #000; }}
figure {{ margin: 0; }}
.row figure {{ max-width: {_PART}px; }}
.wide figure {{ max-width: {_PEAK}px; }}
figcaption {{ font-size: 14px; color: #4a505a; }}
.row {{ display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }}
.legend span {{ margin-right: 22px; }}
.legend i {{ display: inline-block; width: 18px; height: 11px; margin-right: 6px; background: #14161a; }}
.knee {{ border: 3px solid {_css(KNEE)}; }}
.place {{ border: 3px dashed {_css(PLACE)}; }}
.letter {{ border: 3px solid {_css(LETTER)}; }}
ol {{ margin: 0; padding-left: 26px; }}
.ended {{ font-weight: 700; }}
.ended::marker {{ color: #8f1500; }}
.refusal {{ margin: 8px 0; padding: 8px 14px; border-left: 6px solid {_css(PLACE)}; background: #f5f6f8; }}
table {{ border-collapse: collapse; font-size: 15px; }}
td {{ overflow-wrap: anywhere; }}
th, td {{ padding: 3px 14px 3px 0; border-bottom: 1px solid #dfe2e7; text-align: left; vertical-align: top; }}
@media print {{ h2 {{ break-after: avoid; }} figure, .refusal {{ break-inside: avoid; }} }}
"""
POLICY: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    f"{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)


def render(page: Page) -> str:
    """The whole page."""
    title = f"Genu: {'; '.join(explain.verdict(page))}"
    seen = _series(page) if page.is_series else [_film(page)]
    parts = [_head(page), *seen, *_refusals(page), *_path(page), *_knees(page), *_evidence(page), *_places(page)]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="referrer" content="no-referrer">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join([*parts, _foot(page)])
        + "\n</body>\n</html>\n"
    )


def _head(page: Page) -> str:
    lines = [f"<h1>{'<br>'.join(map(escape, explain.verdict(page)))}</h1>"]
    lines += [_text("p", line, "fine") for line in explain.image_lines(page)]
    return "\n".join([*lines, *_marks(page)])


def _marks(page: Page) -> list[str]:
    marks = [_text("p", RESEARCH_MARK, "mark")]
    return [*marks, _text("p", SYNTHETIC_MARK, "mark synthetic")] if page.is_synthetic else marks


def _film(page: Page) -> str:
    heading = "<h2>The film, and what was seen on it</h2>"
    lines = "\n".join(_text("p", line) for line in explain.film_sentences(page))
    if page.film is None:
        return "\n".join([heading, _text("p", page.why_no_film, "nofilm"), lines])
    drawn = draw_film(page.film, page.look, FILM, text=18)
    legend = "".join(
        f'<span><i class="{_NAMES[colour]}"></i>{escape(text)}</span>' for colour, text in legend_of(page.look)
    )
    return "\n".join(
        [
            heading,
            _picture(drawn.pixels, "The film, with what was seen marked on it"),
            f'<p class="legend">{legend}</p>',
            lines,
        ]
    )


def _series(page: Page) -> Iterable[str]:
    for volume in page.volumes:
        yield _text("h2", explain_mr.verdict_line(volume))
        yield "\n".join(_text("p", line) for line in explain_mr.volume_lines(volume))
        if page.why_no_film:
            yield _text("p", page.why_no_film, "nofilm")
            continue
        plain, heat = explain_mr.peak_pictures(volume, _PEAK)
        number = slice_words(volume.top, volume)
        pictures = (
            _picture(plain, f"Slice {number}, of the highest saliency"),
            _picture(heat, explain_mr.HEAT_CAPTION),
        )
        yield f'<div class="row wide">{"".join(pictures)}</div>'
        yield _text("h3", "The slices that were read: number, attention, and where the model looked")
        yield _picture(explain_mr.sheet(volume, FILM[0]), "In the order of their places; the bars share one scale")
    yield "<h2>The MR series of this study</h2>"
    yield _table(explain_mr.SERIES_TITLES, explain_mr.series_rows(page.series))


def _refusals(page: Page) -> Iterable[str]:
    found = list(explain.remedies(page))
    if found:
        yield "<h2>Why not scored, and what to do</h2>"
    for whom, meaning, sentence, remedy in found:
        told = [
            f"<p><b>{escape(whom)}</b> - {escape(meaning)}</p>",
            _text("p", sentence),
            f"<p><b>What to do:</b> {escape(remedy)}</p>",
        ]
        yield '<div class="refusal">' + "\n".join(told) + "</div>"


def _path(page: Page) -> Iterable[str]:
    yield "<h2>The way to the decision</h2>"
    for name, steps in explain.path_of(page):
        yield _text("h3", name)
        yield f"<ol>{''.join(_step(step, page) for step in steps)}</ol>"


def _step(step: Step, page: Page) -> str:
    answer = f"<b>{escape(step.question)}:</b> {escape(step.answer)}"
    return f"<li>{answer}</li>" if step.passed else f'<li class="ended">{answer}{explain.ending(page)}</li>'


def _knees(page: Page) -> Iterable[str]:
    if page.knees:
        yield "<h2>The knees that were scored</h2>"
    for knee in page.knees:
        title, *lines = explain.knee_lines(knee)
        yield _text("h3", title)
        yield f'<div class="row">{"".join(_pictures(page, knee))}<div>{_bars(knee)}'
        yield "\n".join(_text("p", line, "fine") for line in lines[1:]) + "</div></div>"


def _pictures(page: Page, knee: KneeFinding) -> Iterable[str]:
    plain, heat = explain.attention(page, knee, _PART)
    which = SIDE_WORDS[knee.side].lower()
    if page.film is not None:
        yield _picture(plain, f"The {which} knee on the film")
    if (crop := explain.crop_of(page, knee)) is not None:
        yield _picture(
            explain.enlarged(crop, _PART), f"The {which} knee as the model saw it: every knee is turned to one side"
        )
    yield _picture(heat, f"Where the model looked ({knee.saliency.method})")


def _bars(knee: KneeFinding) -> str:
    rows = []
    for grade, value in enumerate(knee.kl.probabilities):
        bar = f'<svg width="{_BAR}" height="14" role="img" aria-label="{value:.2f}">'
        bar += f'<rect width="{_BAR}" height="14" fill="#dfe2e7"></rect>'
        bar += f'<rect width="{value * _BAR:.1f}" height="14" fill="#14506e"></rect></svg>'
        rows.append(f"<tr><td>KL {grade}</td><td>{bar}</td><td>{value:.2f}</td></tr>")
    return f"<table><tr><th>grade</th><th>probability</th><th></th></tr>{''.join(rows)}</table>"


def _evidence(page: Page) -> Iterable[str]:
    found = explain.evidence_of(page)
    if found:
        yield f"<h2>{'Evidence' if page.is_series else 'Evidence for anatomy, view and side'}</h2>"
        yield _table(
            ("about", "where", "what stood there", "speaks for"),
            [(one.about, one.source, one.value, one.supports) for one in found],
        )


def _places(page: Page) -> Iterable[str]:
    rows = list(explain.place_rows(page))
    if rows:
        yield "<h2>Places on the film</h2>"
        yield _table(explain.PLACE_TITLES, rows)
        yield _text("p", "Boxes in pixels of the source image, tilt in degrees, all else from 0 to 1.", "fine")


def _foot(page: Page) -> str:
    lines = [f"Genu {page.software}", *map(model_line, page.models), explain.NO_IDENTITY]
    return "\n".join(["<h2>Made by</h2>", *(_text("p", line, "fine") for line in lines), *_marks(page)])


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(_text("th", title) for title in titles)
    body = "".join(f"<tr>{''.join(_text('td', cell) for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(tag: str, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f"<{tag}{named}>{escape(text)}</{tag}>"


def _picture(pixels: Rgb, caption: str) -> str:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    rows, columns = pixels.shape[:2]
    picture = f'<img src="{source}" width="{columns}" height="{rows}" alt="{escape(caption)}">'
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"
