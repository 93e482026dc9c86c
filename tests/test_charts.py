"""Charts: images that say what the figures say, in the reader's colours, and run nothing."""

from xml.etree import ElementTree

import pytest

from mintoken.charts import COLOURS, HEIGHT, compact, lines, stacked_bars

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]


def test_every_series_is_named_and_every_value_is_there() -> None:
    svg = stacked_bars(["11-01", "11-02"], {"full": [1, 2], "<script>x</script>": [3, 0]})
    assert {"full", "<script>x</script>"} <= set(texts(svg))
    assert "<script" not in svg
    assert {"11-01", "11-02"} <= set(texts(svg))
    titles = ElementTree.fromstring(svg).iter(f"{SVG}desc")
    assert {one.text for one in titles} >= {"1", "2", "3"}


def test_a_line_breaks_where_nothing_was_measured() -> None:
    svg = lines(["a", "b", "c", "d"], {"First byte": [120, None, 80, None]})
    drawn = [one.text for one in ElementTree.fromstring(svg).iter(f"{SVG}desc")]
    assert {"120", "80"} <= set(drawn)
    assert "0" not in drawn
    assert "Nothing yet" in texts(lines(["a"], {}))


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("name", ["full", "a model with a long name"])
def test_no_name_of_the_legend_is_cut_off(name: str, count: int) -> None:
    root = ElementTree.fromstring(stacked_bars(["a"], {f"{name} {at}": [1] for at in range(count)}))
    [legends] = root.iterfind(f".//{SVG}g[@class='legends']")
    top = float(legends.attrib["transform"].rstrip(")").split(",")[1])
    ends = [float(box.attrib["y"]) + 12 for box in legends.iter(f"{SVG}rect")]
    assert len(ends) == count
    assert top + max(ends) <= HEIGHT


def test_it_asks_nobody_for_anything() -> None:
    svg = stacked_bars(["a"], {"full": [1]})
    assert "http" not in svg.replace("http://www.w3.org/", "")
    assert "url(" not in svg


def test_it_has_the_colours_of_both_schemes() -> None:
    svg = stacked_bars(["a"], {"full": [1]}).replace(": ", ":")  # pygal may take the spaces out
    assert COLOURS["light"][0] in svg
    assert "prefers-color-scheme:dark" in svg
    assert COLOURS["dark"][0] in svg


def test_few_are_not_counted_in_fractions() -> None:
    assert not [one for one in texts(stacked_bars(["a"], {"full": [1]})) if "." in one]


def test_nothing_at_all_is_a_chart_that_says_so() -> None:
    assert "Nothing yet" in texts(stacked_bars([], {}))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1k"), (1234, "1.23k"), (35e6, "35M"), (2e9, "2G")],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert compact(value) == shown
