"""A report of savings as people read it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from mintoken.experiment import FLOOR, MEASURE, WANTED, Interval
from mintoken.pricing import Prices
from mintoken.savings import Line, Money, Report, Status

COLUMNS = {
    "model": "Model",
    "product": "Product",
    "control": "Control",
    "output": "Output",
    "without": "Without",
    "ratio": "Ratio (95 %)",
    "saved": "Saved (95 %)",
    "per_1000": "Per 1,000",
    "status": "Status",
}
HOW = f"""\
Product and Control are conversations. Output is tokens per request; Without is what the same
requests would have taken with answers like control's, of the same key, model and size of opening.
The intervals hold at every look (arXiv:2103.06476), from {FLOOR} conversations in each arm on.
Measured is a ratio that is known within {100 * WANTED:.0f} percentage points."""
NAMES_SHOWN = 5
GUESSED = 0.05
"""The share of requests with estimated tokens from which on it is told."""


def row(line: Line) -> dict[str, object]:
    """A line of the table, by the keys of COLUMNS."""
    place, known = MEASURE["output_tokens"], line.output is not None
    worth = line.money if line.money is not None and line.money.interval is not None else None
    unpriced = line.money is None and any(line.comparison.seen)
    return {
        "model": "Total" if line.model is None else line.model,
        "product": line.comparison.seen[0],
        "control": line.comparison.seen[1],
        "output": round(line.comparison.treated[place]) if known else None,
        "without": round(line.comparison.reference[place]) if known else None,
        "ratio": _ratio(line.output),
        "saved": _span(worth.interval, usd) if worth else ("unpriced" if unpriced else None),
        "per_1000": usd(1000 * worth.net / worth.requests) if worth else None,
        "status": _status(line),
    }


def sentences(
    report: Report, prices: Prices, *, key: str, stops: Iterable[Mapping[str, object]] = ()
) -> Iterator[str]:
    """What the table does not say.

    `key` is one that could be given a control arm, `stops` say where the product is stopped.
    """
    yield from _measured(report, prices, key)
    for stop in stops:
        yield "It does not pay, so it is stopped since {since}: {key} on {model}.".format(**stop)


def _measured(report: Report, prices: Prices, key: str) -> Iterator[str]:
    total = report.total
    if total.status is Status.NOT_MEASURED:
        yield from _against_concise(report)
        yield (
            "Not measured: there is no control arm, so nobody knows what the answers would have "
            "been without.\nTo leave one conversation in ten as it is: "
            f"mintoken keys update {key} --control 10"
        )
        return
    if total.money is not None and total.money.interval is not None:
        yield _balance(total.money)
    yield from _apart(total)
    yield from _against_concise(report)
    yield from _caveats(report)
    yield HOW
    if days := sorted({price.as_of for price in prices_used(report, prices).values()}):
        yield f"Prices as of {' and '.join(day or 'an unknown day' for day in days)}."


def prices_used(report: Report, prices: Prices) -> Prices:
    """Those of the models of the report, as far as they are known."""
    names = [line.model for line in report.lines if line.model is not None]
    return {name: prices[name] for name in names if name in prices}


def _balance(worth: Money) -> str:
    return (
        f"Net saving on the product's {worth.requests:,} requests: {_span(worth.interval, usd)} "
        f"= {usd(worth.output)} of output, {usd(worth.injected)} for the injected text, "
        f"{usd(worth.cache)} of cache discount."
    )


def _apart(total: Line) -> Iterator[str]:
    if total.reasoning is not None:
        yield (
            f"Ratio of reasoning tokens: {_ratio(total.reasoning)}; of the visible ones: "
            f"{_ratio(total.visible)}."
        )
    again = total.follow_ups
    if again is not None and not again.low <= 1 <= again.high:
        yield (
            f"The product's conversations have {_ratio(again)} times as many requests as "
            "control's, so what is saved per request is not what is saved per conversation."
        )


def _against_concise(report: Report) -> Iterator[str]:
    """What the text is worth over three words."""
    for line, says in (
        (report.concise, 'Ratio of "Answer concisely." to control'),
        (report.over_concise, 'Ratio of Mintoken to "Answer concisely."'),
    ):
        if line is not None:
            yield f"{says}: {_ratio(line.output) or _status(line)}."


def _caveats(report: Report) -> Iterator[str]:
    comparison = report.total.comparison
    if comparison.left_out:
        yield (
            f"Left out: {comparison.left_out:.1%} of the product's requests; control has too few "
            "conversations of the same key and model."
        )
    place = MEASURE["estimated"]
    guessed = max(comparison.treated[place], comparison.reference[place])
    if guessed >= GUESSED:
        yield f"The tokens of {guessed:.0%} of these requests are estimates, which nobody counted."
    place = MEASURE["unreported"]
    unknown = max(comparison.treated[place], comparison.reference[place])
    if unknown >= GUESSED:
        yield (
            f"The provider has not told the usage of {unknown:.0%} of these requests, so their "
            "cached and reasoning tokens are unknown and count as none.\n"
            "For streams, upstream.ask_stream_usage = true asks for it."
        )
    if report.unpriced:
        names = [_printable(name) for name in report.unpriced[:NAMES_SHOWN]]
        more = len(report.unpriced) - len(names)
        names += [f"{more} more"] if more else []
        yield f"Unpriced: {', '.join(names)}. Your own prices go into a file: savings.prices."


def _status(line: Line) -> str:
    if line.status is Status.COLLECTING:
        return f"collecting: {sum(line.comparison.seen):,} of about {line.needed:,}"
    return line.status.value.replace("_", " ")


def usd(amount: float) -> str:
    """US dollars: cents from a dollar on, two digits below."""
    size = abs(amount)
    if size < 1e-9:
        return "$0.00"
    digits = 2 if size >= 0.995 else max(2, 1 - math.floor(math.log10(size)))
    return f"{'-' if amount < 0 else ''}${size:,.{digits}f}"


def _ratio(interval: Interval | None) -> str | None:
    return _span(interval, "{:.2f}".format)


def _span(interval: Interval | None, shown: Callable[[float], str]) -> str | None:
    if interval is None:
        return None
    return f"{shown(interval.value)} ({shown(interval.low)} to {shown(interval.high)})"


def _printable(name: str) -> str:
    """Callers choose the names of models: what would steer the terminal is not shown."""
    return "".join(one if one.isprintable() else "\ufffd" for one in name) or "(none)"
