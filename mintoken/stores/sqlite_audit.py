"""Are the sums that the SQLite store keeps those of its rows."""

import math
import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from mintoken.clock import utc_text
from mintoken.reports import HOUR_MS, USAGE_SUMS, ArmSample
from mintoken.stores import sqlite_rows as rows
from mintoken.stores.sqlite_samples import SAMPLES, SAMPLES_OF_ROWS, sample

_CELL = "account_id, hour, key_id, model, intensity"
_ROW_SUMS = """count(*) AS requests,
    sum(outcome NOT IN ('ok', 'client_closed') OR status >= 400) AS errors,
    sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(reasoning_tokens),
    sum(injected_tokens), sum(charged_tokens), count(first_byte_ms), ifnull(sum(first_byte_ms), 0),
    count(duration_ms), ifnull(sum(duration_ms), 0)"""
_NAMES = ", ".join(USAGE_SUMS)
_SUMS = ", ".join(f"sum({name})" for name in USAGE_SUMS)
_KEPT = ", ".join(f"ifnull(h.{name}, -1)" for name in USAGE_SUMS)
_CELLS = f"""
SELECT made.*, {_KEPT} FROM (
    SELECT account_id, started_at / {HOUR_MS} AS hour, key_id, model, intensity, {_ROW_SUMS}
    FROM usage WHERE outcome <> 'reserved' GROUP BY 1, 2, 3, 4, 5
) AS made LEFT JOIN usage_hours h USING ({_CELL})"""  # noqa: S608 - of our own names
_BY_ACCOUNT = f"SELECT account_id, {_SUMS} FROM usage_hours GROUP BY 1"  # noqa: S608
_IN_PURGED = tuple(name for name in USAGE_SUMS if name == "requests" or name.endswith("_tokens"))
_PURGED = f"""
SELECT account_id, {", ".join(f"sum({name})" for name in _IN_PURGED)}
FROM purged_usage GROUP BY 1"""  # noqa: S608
_HOUR_TOTALS = """
SELECT DISTINCT account_id, start FROM (
    SELECT account_id, start, name, {names} FROM usage_totals
    WHERE dimension = '{dimension}' AND step = 1
    UNION ALL
    SELECT account_id, h.hour, {column}, {sums}
    FROM usage_hours h JOIN totals_until u USING (account_id) WHERE h.hour < u.hour
    GROUP BY 1, 2, 3
) GROUP BY account_id, start, name, {names} HAVING count(*) <> 2 ORDER BY 1, 2"""
_DAY_TOTALS = f"""
SELECT DISTINCT account_id, start FROM (
    SELECT account_id, dimension, start, name, {_NAMES} FROM usage_totals WHERE step = 24
    UNION ALL
    SELECT account_id, dimension, start / 24 * 24, name, {_SUMS} FROM usage_totals WHERE step = 1
    GROUP BY 1, 2, 3, 4
) GROUP BY account_id, dimension, start, name, {_NAMES} HAVING count(*) <> 2
ORDER BY 1, 2"""  # noqa: S608
_TOTALS = (
    *(
        _HOUR_TOTALS.format(names=_NAMES, sums=_SUMS, dimension=dimension, column=column)
        for dimension, column in (("key", "key_id"), ("model", "model"), ("level", "intensity"))
    ),
    _DAY_TOTALS,
)
_LATENCY = """
SELECT account_id, 24 * day FROM (
    SELECT account_id, hour / 24 AS day, first_bytes, durations FROM usage_hours
    UNION ALL
    SELECT account_id, day, -first_bytes, -durations FROM latency_days
) GROUP BY account_id, day HAVING sum(first_bytes) <> 0 OR sum(durations) <> 0 ORDER BY 1, 2"""


def audit(database: sqlite3.Connection) -> list[str]:
    """Everything that is not as it must be, one line each. Blocks, as long as all rows take.

    What was purged is in the roll-ups and no more in the rows: so no roll-up may be less than its
    rows, and an account's must be as much as its rows and what was purged together.
    """
    return [
        *(rows.discrepancy(*line) for line in database.execute(rows.AUDIT)),
        *_rows_against_hours(database),
        *(
            _told(account_id, hour, "a total is not the sum of its hours")
            for statement in _TOTALS
            for account_id, hour in database.execute(statement)
        ),
        *_samples_against_rows(database),
        *(
            _told(account_id, hour, "the day's latencies are not those of its requests")
            for account_id, hour in database.execute(_LATENCY)
        ),
    ]


def _rows_against_hours(database: sqlite3.Connection) -> Iterator[str]:
    size = len(USAGE_SUMS)
    made: dict[str, Counter[str]] = {}
    less: set[tuple[str, int]] = set()
    for account_id, hour, _, _, _, *sums in database.execute(_CELLS):
        if any(kept < due for due, kept in zip(sums[:size], sums[size:], strict=True)):
            less.add((account_id, hour))
        made.setdefault(account_id, Counter()).update(_named(sums[:size]))
    for account_id, hour in sorted(less):
        yield _told(account_id, hour, "the hour's sums are less than its rows make")
    purged = {account_id: sums for account_id, *sums in database.execute(_PURGED)}
    kept = {account_id: _named(sums) for account_id, *sums in database.execute(_BY_ACCOUNT)}
    for account_id in sorted(made.keys() | purged.keys() | kept.keys()):
        due = made.get(account_id, Counter())
        due.update(dict(zip(_IN_PURGED, purged.get(account_id, ()), strict=False)))
        names = _IN_PURGED if account_id in purged else USAGE_SUMS
        found = kept.get(account_id, {})
        wrong = [name for name in names if found.get(name, 0) != due[name]]
        if wrong:
            yield f"account {account_id}: its hours' sums are not its rows': {', '.join(wrong)}"


def _samples_against_rows(database: sqlite3.Connection) -> Iterator[str]:
    asked = {"since_ms": 0, "account_id": None, "experiments": None}
    made, kept = (
        {(one.key_id, one.model, one.bucket, one.epoch, one.arm): one for one in map(sample, lines)}
        for lines in (database.execute(SAMPLES_OF_ROWS, asked), database.execute(SAMPLES, asked))
    )
    wrong = {
        stratum[0]
        for stratum in made.keys() | kept.keys()
        if not _alike(made.get(stratum), kept.get(stratum))
    }
    yield from (f"key {key}: its experiment's sums are not its rows'" for key in sorted(wrong))


def _alike(made: ArmSample | None, kept: ArmSample | None) -> bool:
    """Are they the same; products only to as many digits as sums in another order keep."""
    if made is None or kept is None:
        return made is kept
    pairs = zip(chain(*made.products), chain(*kept.products), strict=True)
    same = (made.conversations, made.sums) == (kept.conversations, kept.sums)
    return same and all(math.isclose(*pair, rel_tol=1e-9) for pair in pairs)


def _named(sums: list[int]) -> dict[str, int]:
    return dict(zip(USAGE_SUMS, sums, strict=True))


def _told(account_id: str, hour: int, wrong: str) -> str:
    return f"account {account_id}, {utc_text(hour * HOUR_MS)}: {wrong}"
