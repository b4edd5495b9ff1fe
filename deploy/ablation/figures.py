"""A study's plots and pictures as separate files, for pages that cannot embed them, such as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from PIL import Image, ImageDraw

from common.atomic import replacing
from deploy.ablation.score_plot import WIDTH, Plot

COLUMNS, GAP, TITLE = 3, 16, 20
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #5a626b; } .end { text-anchor: end; } .title { fill: #1b1e22; }
.grid { stroke: #e2e4e7; } .mean { stroke: #1b1e22; stroke-width: 2; } .dot { fill: #1f66b5; opacity: .75; }
.band { fill: #5a626b; opacity: .18; }
"""


def write_plots(path: Path, plots: Sequence[Plot]) -> None:
    """All plots in rows of COLUMNS, as one SVG file."""
    height = TITLE + max(plot.height for plot in plots) + GAP
    rows = -(-len(plots) // COLUMNS)
    parts = [
        Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}">').format(
            COLUMNS * (WIDTH + GAP), rows * height
        ),
        Markup(f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'),
    ]
    for index, plot in enumerate(plots):
        row, column = divmod(index, COLUMNS)
        good = f" ({plot.good} is better)" if plot.good else ""
        parts.append(
            Markup('<g transform="translate({} {})"><text class="title" x="8" y="14">{}</text>').format(
                column * (WIDTH + GAP), row * height, plot.title + good
            )
        )
        parts.append(Markup('<g transform="translate(0 {})">{}</g></g>').format(TITLE, plot.drawing))
    with replacing(path) as temporary:
        temporary.write_text(Markup("\n").join([*parts, Markup("</svg>\n")]))


def write_pictures(path: Path, pictures: Sequence[tuple[str, Path]]) -> None:
    """Pictures of one size with their titles, in rows of COLUMNS, as one JPEG file."""
    loaded = [(title, Image.open(file).convert("RGB")) for title, file in pictures]
    width, height = loaded[0][1].width + GAP, loaded[0][1].height + TITLE
    rows = -(-len(loaded) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(loaded)) * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (title, picture) in enumerate(loaded):
        row, column = divmod(index, COLUMNS)
        draw.text((column * width + 2, row * height + 4), title, fill="black")
        sheet.paste(picture, (column * width, row * height + TITLE))
    with replacing(path) as temporary:
        sheet.save(temporary, format="jpeg", quality=85)
