"""What the SQLite store is asked about experiments: sums and products by key, model and arm."""

import sqlite3
from itertools import combinations_with_replacement
from operator import itemgetter

from mintoken.reports import MEASURES, ArmSample

_SIZE = len(MEASURES)
_PLACES = tuple(combinations_with_replacement(range(_SIZE), 2))
_PRODUCTS_OF = tuple(
    itemgetter(*(_PLACES.index((min(i, j), max(i, j))) for j in range(_SIZE))) for i in range(_SIZE)
)
"""Of each measure, its products with all of them, out of those of _PLACES."""

_KEPT = [name.removesuffix("_tokens") for name in MEASURES]
SAMPLES = f"""
SELECT experiment, model, bucket, epoch, arm, conversations, {", ".join(MEASURES)},
    {", ".join(f"{_KEPT[i]}_{_KEPT[j]}" for i, j in _PLACES)}
FROM experiment_samples
WHERE (:account_id IS NULL OR experiment IN (
        SELECT iif(origin = '', id, origin) FROM keys WHERE account_id = :account_id))
    AND (:experiments IS NULL OR experiment IN (SELECT value FROM json_each(:experiments)))
ORDER BY 1, 2, 3, 4, 5"""  # noqa: S608 - of our own names

# The same out of the rows, of a time. No request has more than 2^40 tokens of a kind, so their sums
# stay whole numbers; the products would not fit into 64 bits and are therefore of floating point,
# which is exact up to 2^53 and keeps 15 digits from there on. A conversation's hash is made with
# the key's origin, so whichever of its keys is kept stands for the same experiment.
_SUMS = ", ".join(f"sum({name})" for name in MEASURES)
_PRODUCTS = ", ".join(f"sum(1.0 * {MEASURES[i]} * {MEASURES[j]})" for i, j in _PLACES)
SAMPLES_OF_ROWS = f"""
WITH conversations AS (
    SELECT max(key_id) AS key_id, model, arm, epoch,
        (opening_bytes >= 256) + (opening_bytes >= 1024) + (opening_bytes >= 4096)
            + (opening_bytes >= 16384) + (opening_bytes >= 65536) + (opening_bytes >= 262144)
            AS bucket,
        count(*) AS requests, sum(input_tokens) AS input_tokens,
        sum(output_tokens) AS output_tokens, sum(cached_tokens) AS cached_tokens,
        sum(reasoning_tokens) AS reasoning_tokens, sum(injected_tokens) AS injected_tokens,
        sum(counted_by = 'estimate') AS estimated, sum(counted_by <> 'upstream') AS unreported
    FROM usage
    WHERE arm NOT IN ('', 'stopped') AND outcome IN ('ok', 'client_closed') AND status = 200
        AND started_at >= :since_ms
        AND (:account_id IS NULL OR account_id = :account_id)
        AND (:experiments IS NULL OR key_id IN (
            SELECT id FROM keys
            WHERE iif(origin = '', id, origin) IN (SELECT value FROM json_each(:experiments))))
    GROUP BY conversation, model, arm, epoch
)
SELECT iif(origin = '', id, origin), model, bucket, epoch, arm, count(*), {_SUMS}, {_PRODUCTS}
FROM conversations JOIN keys ON id = key_id
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 2, 3, 4, 5"""  # noqa: S608 - of our own names


def sample(row: sqlite3.Row) -> ArmSample:
    key_id, model, bucket, epoch, arm, conversations, *numbers = row
    products = tuple(map(int, numbers[_SIZE:]))
    return ArmSample(
        key_id=key_id,
        model=model,
        bucket=bucket,
        epoch=epoch,
        arm=arm,
        conversations=conversations,
        sums=tuple(numbers[:_SIZE]),
        products=tuple(row(products) for row in _PRODUCTS_OF),
    )
