"""The page of an evaluation: a chart of tokens against facts, and tables. It needs no network."""

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import pygal

from mintoken.charts import bare, style
from mintoken.eval_records import Arm


def page(
    found: Mapping[str, Any], rows: Sequence[Mapping[str, object]], columns: Mapping[str, str]
) -> str:
    """The page for a report; `rows` are its arms in words."""
    template = (files("mintoken") / "data" / "eval_report.html").read_text(encoding="utf-8")
    settings = found["settings"]
    about = (
        f"Model {settings['model']}, provider {settings['base_url']}, prompt set "
        f"{found['prompt_set']} ({found['prompts']} prompts, asked {found['runs']}\u00d7 in each "
        f"arm), answers of up to {settings['cap']:,} tokens, level texts "
        f"{settings['prompt_version']}."
    )
    return Template(template).substitute(
        about=html.escape(about),
        notes="".join(f'<p class="note">{html.escape(note)}</p>' for note in _notes(found)),
        chart=chart(found["arms"]) if found["arms"] else "<p>Nothing can be compared yet.</p>",
        arms=_table(columns.values(), ([row[name] for name in columns] for row in rows)),
        method=html.escape(
            "Tokens are means per request, as the provider counts them where it does. In brackets: "
            f"the interval ({found['interval']}). Compared are the {found['compared']} pairs of "
            "prompt and run that every arm has answered."
        ),
        categories=_table(["Category", *_arm_names()], _by_category(found["categories"])),
        missed=_missed(found["missed"]),
        failures=_failures(found["failures"]),
    )


def _notes(found: Mapping[str, Any]) -> list[str]:
    notes = [found["note"]] if found["note"] else []
    if not found["complete"]:
        notes.append(f"Not complete: {are_left(found['requests_left'])}.")
    return notes


def are_left(count: int) -> str:
    """How many requests have no answer."""
    return "1 request is left" if count == 1 else f"{count:,} requests are left"


def chart(arms: Sequence[Mapping[str, Any]]) -> str:
    """An SVG element: answer tokens to the right, facts kept upwards, with their intervals."""
    colors = [f"var(--{arm['arm']})" for arm in arms]
    drawn = pygal.XY(
        width=900, height=480, margin=24, js=[], stroke=False, dots_size=7, no_data_text="",
        disable_xml_declaration=True, print_labels=True, show_x_guides=True,
        legend_at_bottom=True, legend_at_bottom_columns=len(arms),
        x_title="Tokens per answer", y_title="Facts kept", style=style(colors * 2),
        x_value_formatter="{:,.0f}".format, value_formatter="{:.1%}".format,
        xrange=(0, 1.08 * max(arm["answer_tokens"] for arm in arms)),
    )  # fmt: skip
    for arm in arms:
        point = {"value": (arm["answer_tokens"], arm["coverage"]["value"]), "label": ""}
        drawn.add(Arm(arm["arm"]).label, [point])
    for arm in arms:
        ends = [(arm["answer_tokens"], arm["coverage"][end]) for end in ("low", "high")]
        drawn.add(None, ends, stroke=True, show_dots=False)
    return bare(drawn.render_tree())


def _arm_names() -> list[str]:
    return [arm.label for arm in Arm]


def _by_category(categories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[list[object]]:
    for name, arms in categories.items():
        yield [name, *(f"{arm['coverage']['value']:.1%}" for arm in arms)]


def _missed(missed: Sequence[Mapping[str, Any]]) -> str:
    if not missed:
        return "<p>None.</p>"
    cells = (
        [one["prompt"], one["fact"], *(one["arms"].get(arm.value, "") for arm in Arm)]
        for one in missed
    )
    return f'<div class="scroll">{_table(["Prompt", "Fact", *_arm_names()], cells, text=1)}</div>'


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    if not failures:
        return "<p>None.</p>"
    cells = ([one["prompt"], one["arm"], one["run"], one["judge"], one["why"]] for one in failures)
    heads = ["Prompt", "Arm", "Run", "Judge", "Why"]
    return f'<div class="scroll">{_table(heads, cells, text=4)}</div>'


def _table(
    heads: Iterable[str], cells: Iterable[Sequence[object]], *, text: int | None = None
) -> str:
    """A table; the column `text` holds sentences."""
    head = _cells("th", list(heads), text)
    body = "".join(f"<tr>{_cells('td', row, text)}</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(tag: str, row: Sequence[object], text: int | None) -> str:
    return "".join(
        f"<{tag}{' class=text' if place == text else ''}>{html.escape(_shown(cell))}</{tag}>"
        for place, cell in enumerate(row)
    )


def _shown(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
