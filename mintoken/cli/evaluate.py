"""`mintoken eval`: what the levels save and keep, with the caller's own provider and model.

What it needs is imported when it runs: it takes most of a second, which other commands save.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mintoken import tables
from mintoken.admin import RefusedError
from mintoken.cli.base import AsJson, ConfigPath, configured
from mintoken.config import Config
from mintoken.options import BASE_URL
from mintoken.pricing import Prices, load_prices

if TYPE_CHECKING:
    from mintoken.eval_budget import Price
    from mintoken.eval_plan import Plan
    from mintoken.eval_records import Book
    from mintoken.evaluate import Evaluation

KEY_VARIABLES = ("MINTOKEN_PROVIDER_KEY", "OPENAI_API_KEY")
STAND_IN = "stand-in"
"""Instead of a model and an address."""
PROGRESS = "{task.completed:.0f} of {task.total:.0f} answered, spent {task.fields[note]}"

Model = Annotated[str, typer.Option(metavar="MODEL", help="The provider's name of the model.")]
BaseUrl = Annotated[
    str, typer.Option(metavar="URL", help="The provider's API; else upstream.base_url.")
]
Prompts = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Your own prompts; else those included.")
]
Runs = Annotated[int, typer.Option(min=1, max=100, metavar="N", help="How often each is asked.")]
MaxUsd = Annotated[
    float | None, typer.Option(min=0.0, metavar="N", help="The most that it may cost in all.")
]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The most tokens that it may take in all.")
]
PriceOption = Annotated[
    str, typer.Option(metavar="IN,OUT", help="The model's, in USD per million tokens: 2.5,10")
]
Judge = Annotated[
    str, typer.Option(metavar="MODEL", help="A model that looks for the facts as well.")
]
JudgePrice = Annotated[str, typer.Option(metavar="IN,OUT", help="The judge's price.")]
Cap = Annotated[
    int, typer.Option(min=16, max=1_000_000, metavar="N", help="The most tokens of an answer.")
]
Concurrency = Annotated[
    int, typer.Option(min=1, max=32, metavar="N", help="Requests at the same time.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where results are kept, to go on from there.")
]


def evaluate(
    model: Model = "",
    base_url: BaseUrl = "",
    prompts: Prompts = None,
    runs: Runs = 1,
    max_usd: MaxUsd = None,
    max_tokens_total: MaxTokens = None,
    price: PriceOption = "",
    judge: Judge = "",
    judge_price: JudgePrice = "",
    cap: Cap = 4096,
    concurrency: Concurrency = 4,
    out: Out = None,
    config: ConfigPath = None,
    *,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Ask a stand-in on this machine, offline.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask prompts without a level, with "Be brief." and with each level; compare the answers."""
    from mintoken.eval_budget import Budget
    from mintoken.eval_plan import Plan, settings_of
    from mintoken.eval_set import load_set

    options = configured(config)
    if stand_in:
        _refuse_beside_stand_in({"--model": model, "--base-url": base_url, "--judge": judge})
        model = base_url = STAND_IN
    elif not model:
        raise typer.BadParameter("Name the model, or try --stand-in.", param_hint="--model")
    asked, address = load_set(prompts), base_url if stand_in else _address(options, base_url)
    prices = _prices({judge: judge, "": model}, price, judge_price, options)
    plan = Plan(
        settings=settings_of(asked, base_url=address, model=model, cap=cap, judge=judge),
        prompts=asked,
        runs=runs,
        budget=Budget(max_usd=max_usd, max_tokens=max_tokens_total, prices=prices),
        concurrency=concurrency,
        folder=out or Path("mintoken-eval-stand-in" if stand_in else "mintoken-eval"),
        connect_timeout=options.upstream.connect_timeout,
        tiktoken_cache_dir=options.tiktoken_cache_dir,
    )
    _end(_run(plan, stand_in=stand_in), as_json=as_json)


def _refuse_beside_stand_in(given: dict[str, str]) -> None:
    for option, value in given.items():
        if value:
            raise typer.BadParameter("The stand-in takes none.", param_hint=option)


def _address(options: Config, base_url: str) -> str:
    if not base_url:
        return options.upstream.base_url
    try:
        read: str = BASE_URL.read(base_url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--base-url") from None
    return read


def _prices(
    models: dict[str, str], price: str, judge_price: str, options: Config
) -> dict[str, Price]:
    """By judge, "" for the model itself: what was given, else what the price table knows."""
    table, prices = load_prices(options.savings.prices), {}
    for judge, model in models.items():
        option = "--judge-price" if judge else "--price"
        text = judge_price if judge else price
        found = _given_price(text, option) if text else _listed_price(model, option, table)
        if found is not None:
            prices[judge] = found
    return prices


def _given_price(text: str, option: str) -> Price:
    from mintoken.eval_budget import price_of

    try:
        return price_of(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no price. Give dollars per million tokens of input and of output, "
            "as 2.5,10.",
            param_hint=option,
        ) from None


def _listed_price(model: str, option: str, table: Prices) -> Price | None:
    """None where the model is not in the table. What is used is told: others may pay more."""
    from mintoken.eval_budget import Price

    if (listed := table.get(model)) is None:
        return None
    _say(
        f"{model} is reckoned at ${listed.input:g} per million tokens of input and "
        f"${listed.output:g} of output (price table, {listed.as_of or 'not dated'}). "
        f"If you pay another price, give it with {option}."
    )
    return Price(listed.input, listed.output)


def _check_limits(plan: Plan) -> None:
    budget = plan.budget
    if budget.max_usd is None and budget.max_tokens is None:
        raise typer.BadParameter(
            "Say what it may take, with this or with --max-tokens-total.", param_hint="--max-usd"
        )
    for judge in dict.fromkeys(("", plan.settings.judge)):
        if budget.max_usd is not None and judge not in budget.prices:
            raise typer.BadParameter(
                f"The price of {judge or plan.settings.model} is not known. Give it as "
                "IN,OUT: dollars per million tokens of input and of output. Or limit the "
                "tokens instead, with --max-tokens-total.",
                param_hint="--judge-price" if judge else "--price",
            )


def _provider_key() -> str:
    """From the environment, else from the terminal; never from the command line."""
    key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
    if not key and sys.stdin.isatty():
        from getpass import getpass

        key = getpass("Your provider's key (not shown): ")
    key = key.strip()
    if not key:
        raise RefusedError(f"Put your provider's key into {' or '.join(KEY_VARIABLES)}.")
    if not key.isascii() or not key.isprintable() or " " in key or key.startswith("mt_"):
        raise RefusedError(
            "This is no provider key: those are of printable ASCII without spaces, and a Mintoken "
            "key (mt_...) is none."
        )
    return key


def _run(plan: Plan, *, stand_in: bool) -> Evaluation:
    from mintoken import evaluate, rehearsal
    from mintoken.eval_plan import questions
    from mintoken.stand_in import stand_in as standing_in

    key = "sk-stand-in-needs-none"
    if not stand_in:
        _check_limits(plan)
        key = _provider_key()

    async def run() -> Evaluation:
        if not stand_in:
            return await evaluate.evaluate(plan, key, plan.settings.base_url, show=show, tell=_say)
        async with standing_in(0, rehearsal.answers(plan.prompts)) as url:
            return await evaluate.evaluate(plan, key, url, show=show, tell=_say)

    with tables.progress(PROGRESS, total=len(questions(plan))) as tell:

        def show(done: int, book: Book) -> None:
            tell(done, plan.budget.told(book.spent()))

        return asyncio.run(run())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _end(evaluation: Evaluation, *, as_json: bool) -> None:
    """Write the report, print it, and say how to go on. Raises typer.Exit."""
    from mintoken import eval_report, rehearsal

    is_stand_in = evaluation.plan.settings.base_url == STAND_IN
    found = eval_report.document(evaluation, note=rehearsal.NOTE if is_stand_in else "")
    data, page = eval_report.write(found, evaluation.plan.folder)
    if as_json:
        tables.print_json({**found, "files": [str(data), str(page)]})
    else:
        _print(found, eval_report.rows(found), eval_report.columns(found))
        print(f"Spent: {evaluation.plan.budget.told(evaluation.book.spent())}.")
        print(f"{page} has the chart, {data} all figures.")
    if evaluation.left:
        _say(f"mintoken: {eval_report.advice(evaluation)}")
    raise typer.Exit(1 if evaluation.left else 0)


def _print(
    found: Mapping[str, Any], rows: Sequence[Mapping[str, object]], columns: Mapping[str, str]
) -> None:
    if rows:
        title = f"{found['compared']} questions that every arm has answered; means per answer"
        tables.print_table(rows, columns, title=title)
    else:
        print("No question has been answered in every arm, so nothing can be compared yet.")
    if found["note"]:
        print(found["note"])
