"""What tokens cost: the dated price table, and the operator's own figures over it."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import cast

from mintoken.errors import ConfigError
from mintoken.reports import UsageRow

AMOUNTS = ("input", "cached_input", "output")
FIELDS = (*AMOUNTS, "snapshots", "source", "as_of")
BUILT_IN = Path("built-in")
"""As the operator's file: there is none, the table that comes with the package is enough."""
DEAREST = 100_000.0
"""US dollars per million tokens; more than that is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens, who says so, and as of which day (`2026-11-25`)."""

    input: float
    cached_input: float
    output: float
    source: str
    as_of: str


Prices = Mapping[str, Price]
"""By the exact name of a model, snapshots too. What is not in it is unpriced, never guessed."""


def cost(row: UsageRow, prices: Prices) -> float | None:
    """What a request cost, in US dollars; None where the model has no price.

    The model that answered counts, if it has one: it may be a dated name of the one asked for.
    """
    price = prices.get(row.model_served) or prices.get(row.model)
    if price is None:
        return None
    fresh = row.input_tokens - row.cached_tokens
    amounts = (
        fresh * price.input,
        row.cached_tokens * price.cached_input,
        row.output_tokens * price.output,
    )
    return sum(amounts) / 1_000_000


def load_prices(own: Path = BUILT_IN) -> Prices:
    """The table that comes with the package, under what `own` says of the same names.

    A model is found by its exact name; an entry's `snapshots` are the dated names that cost the
    same. Raises ConfigError with every problem of the operator's file.
    """
    built_in = files("mintoken") / "data" / "prices.toml"
    prices = _read(built_in.read_text(encoding="utf-8"), "data/prices.toml")
    if own == BUILT_IN:
        return prices
    try:
        return prices | _read(own.read_text(encoding="utf-8-sig"), str(own))
    except OSError as error:
        raise ConfigError([f"savings.prices: {own} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"savings.prices: {own} is not text in UTF-8"]) from error


def _read(text: str, name: str) -> dict[str, Price]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: is not valid TOML: {error}"]) from error
    models = content.pop("models", {})
    if not isinstance(models, dict):
        raise ConfigError([f"{name}: models: is no table; write [models.NAME]"])
    problems = [f"{name}: {key}: unknown; models stand under [models.NAME]" for key in content]
    for model, entry in models.items():
        problems += (f'{name}: models."{model}"{what}' for what in _wrong(entry))
    if problems:
        raise ConfigError(problems)
    return dict(pair for model, entry in models.items() for pair in _priced(model, entry, name))


def _wrong(entry: object) -> Iterator[str]:
    """What is wrong with the entry of one model."""
    if not isinstance(entry, dict):
        yield ": is no table; write [models.NAME] with input and output below it"
        return
    yield from (f".{key}: unknown; known are {', '.join(FIELDS)}" for key in entry.keys() - FIELDS)
    for key in AMOUNTS:
        amount = entry.get(key)
        if amount is None and key != "cached_input":
            yield f".{key}: is missing; US dollars per million tokens"
        elif amount is not None and not _is_amount(amount):
            yield f".{key}: {amount} is not allowed; a number of US dollars per million tokens is"
    full, cached = entry.get("input"), entry.get("cached_input")
    if _is_amount(full) and _is_amount(cached) and cast(float, cached) > cast(float, full):
        yield f".cached_input: {cached} is more than input, {full}"
    snapshots = entry.get("snapshots", [])
    if not isinstance(snapshots, list) or not all(isinstance(name, str) for name in snapshots):
        yield '.snapshots: a list of texts is needed, like ["2024-08-06"]'
    if not isinstance(entry.get("source", ""), str):
        yield ".source: a text is needed"
    if type(entry.get("as_of", date.min)) is not date:
        yield ".as_of: a date is needed, like 2026-11-25"


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= cast(float, value) <= DEAREST


def _priced(model: str, entry: Mapping[str, object], name: str) -> Iterator[tuple[str, Price]]:
    price = Price(
        input=float(cast(float, entry["input"])),
        cached_input=float(cast(float, entry.get("cached_input", entry["input"]))),
        output=float(cast(float, entry["output"])),
        source=str(entry.get("source", name)),
        as_of=str(entry.get("as_of", "")),
    )
    yield model, price
    for snapshot in cast(list[str], entry.get("snapshots", [])):
        yield f"{model}-{snapshot}", price
