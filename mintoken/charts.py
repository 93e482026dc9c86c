"""Charts as SVG, drawn by pygal: in the colours of the page, light or dark, without a script."""

import re
import sys
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import pygal
from pygal.style import Style

# pygal puts a hook for its plugins into every import: Python 3.11 warns of it, 3.12 passes it over.
sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, pygal.PluginImportFixer)]

COLOURS = {
    "light": ("#1f6f8b", "#c2571a", "#5b7f2b", "#7a4fa3", "#8a6d00", "#a33a5c"),
    "dark": ("#5cb8d6", "#f0935a", "#9ccb5f", "#b894e6", "#d9b84a", "#ef86a8"),
}
_INK = {"light": ("#1d2329", "#5a646e", "#d5dbe0"), "dark": ("#e6eaee", "#9aa5b0", "#3a444d")}
WIDTH, HEIGHT = 480, 260
"""Of an image, about the size that it is shown in: its letters shrink and grow with it."""
LEGEND_ROW = 21
"""How high one is, in the legend's letters."""
SHORT_NAME = 12
MOST_DOTS = 40
"""Of a line; more run into each other, and take long to draw."""
_COMMENT = re.compile("<!--.*?-->", re.S)
_SVG = "{http://www.w3.org/2000/svg}"


def style(colours: Sequence[str]) -> Style:
    """Lines and letters in the colours --ink, --dim and --line of whatever shows the chart."""
    return Style(
        background="transparent", plot_background="transparent", colors=tuple(colours),
        foreground="var(--ink)", foreground_strong="var(--ink)", foreground_subtle="var(--dim)",
        guide_stroke_color="var(--line)", major_guide_stroke_color="var(--line)",
        font_family="system-ui, sans-serif", stroke_width="2", opacity="1", stroke_opacity="1",
        label_font_size=13, major_label_font_size=13, title_font_size=14, legend_font_size=14,
        transition="none",
    )  # fmt: skip


def bare(root: ElementTree.Element) -> str:
    """Without its script, which serves the one that it would fetch, and without comments."""
    for parent in list(root.iter()):
        for child in [one for one in parent if str(one.tag).removeprefix(_SVG) == "script"]:
            parent.remove(child)
    return _COMMENT.sub("", ElementTree.tostring(root, encoding="unicode"))


def stacked_bars(labels: Sequence[str], series: Mapping[str, Sequence[int | None]]) -> str:
    """An SVG image of its own: a bar for each label, in which every series has its part.

    Every number belongs to the label at its place. Of many labels only some are written out.
    """
    return _drawn(pygal.StackedBar, labels, series)


def lines(labels: Sequence[str], series: Mapping[str, Sequence[int | None]]) -> str:
    """The same with a line for each series, which breaks where there is no number."""
    return _drawn(pygal.Line, labels, series, show_dots=len(labels) <= MOST_DOTS, dots_size=2.5,
        include_x_axis=True,
    )  # fmt: skip


def _drawn(
    kind: type[pygal.Graph],
    labels: Sequence[str],
    series: Mapping[str, Sequence[int | None]],
    **options: object,
) -> str:
    names = list(series)
    columns = _columns(names)
    # pygal leaves no room for a last row of the legend that is not full.
    last_row = LEGEND_ROW if len(names) % columns else 0
    drawn = kind(
        width=WIDTH, height=HEIGHT, margin=8, margin_right=20, js=[],
        margin_bottom=8 + last_row, max_scale=6, order_min=0,
        css=["file://style.css", "file://graph.css", _css()],
        legend_at_bottom=True, legend_at_bottom_columns=columns,
        no_data_text="Nothing yet", print_values=False, show_minor_x_labels=False,
        x_labels_major_count=min(6, max(1, len(labels))), truncate_legend=24, truncate_label=-1,
        value_formatter=compact, disable_xml_declaration=True,
        style=style([f"var(--series-{at % 6})" for at in range(max(1, len(names)))]), **options,
    )  # fmt: skip
    drawn.x_labels = list(labels)
    for name in names:
        drawn.add(name, list(series[name]))
    return bare(drawn.render_tree())


def _columns(names: Sequence[str]) -> int:
    """Of the legend: three, or two if a name needs the room."""
    most = 3 if max(map(len, names), default=0) <= SHORT_NAME else 2
    return max(1, min(most, len(names)))


def compact(value: float) -> str:
    """A number of at most four characters or so: 1.2k, 35M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _css() -> str:
    """The colours, for an image knows nothing of the page around it."""

    def colours(scheme: str) -> str:
        named = dict(zip(("ink", "dim", "line"), _INK[scheme], strict=True))
        named |= {f"series-{at}": colour for at, colour in enumerate(COLOURS[scheme])}
        return "".join(f"--{name}:{colour};" for name, colour in named.items())

    dark = f"@media (prefers-color-scheme: dark){{svg{{{colours('dark')}}}}}"
    return f"inline:svg{{{colours('light')}}}{dark}"
