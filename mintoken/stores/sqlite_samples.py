"""What the SQLite store is asked about experiments: sums and products by key, model and arm."""

import sqlite3
from itertools import combinations_with_replacement

from mintoken.reports import MEASURES, ArmSample

_SIZE = len(MEASURES)
_PLACES = tuple(combinations_with_replacement(range(_SIZE), 2))

# The measures in their order: r i o c t j e. No request has more than 2^40 tokens of a kind, so
# their sums stay whole numbers; the products would not fit into 64 bits and are therefore of
# floating point, which is exact up to 2^53 and keeps 15 digits from there on. A conversation's hash
# is made with the key's origin, so whichever of its keys is kept stands for the same experiment.
SAMPLES = """
WITH conversations AS (
    SELECT max(key_id) AS key_id, model, arm,
        (opening_bytes >= 256) + (opening_bytes >= 1024) + (opening_bytes >= 4096)
            + (opening_bytes >= 16384) + (opening_bytes >= 65536) + (opening_bytes >= 262144)
            AS bucket,
        count(*) AS r, sum(input_tokens) AS i, sum(output_tokens) AS o, sum(cached_tokens) AS c,
        sum(reasoning_tokens) AS t, sum(injected_tokens) AS j,
        sum(counted_by = 'estimate') AS e
    FROM usage
    WHERE arm NOT IN ('', 'stopped') AND outcome IN ('ok', 'client_closed') AND status = 200
        AND started_at >= :since_ms
        AND (:account_id IS NULL OR account_id = :account_id)
        AND (:key_id IS NULL OR key_id IN (
            SELECT id FROM keys WHERE iif(origin = '', id, origin)
                = (SELECT iif(origin = '', id, origin) FROM keys WHERE id = :key_id)))
    GROUP BY conversation, model, arm
)
SELECT iif(origin = '', id, origin), model, bucket, arm, count(*),
    sum(r), sum(i), sum(o), sum(c), sum(t), sum(j), sum(e),
    sum(1.0 * r * r), sum(1.0 * r * i), sum(1.0 * r * o), sum(1.0 * r * c), sum(1.0 * r * t),
    sum(1.0 * r * j), sum(1.0 * r * e),
    sum(1.0 * i * i), sum(1.0 * i * o), sum(1.0 * i * c), sum(1.0 * i * t), sum(1.0 * i * j),
    sum(1.0 * i * e),
    sum(1.0 * o * o), sum(1.0 * o * c), sum(1.0 * o * t), sum(1.0 * o * j), sum(1.0 * o * e),
    sum(1.0 * c * c), sum(1.0 * c * t), sum(1.0 * c * j), sum(1.0 * c * e),
    sum(1.0 * t * t), sum(1.0 * t * j), sum(1.0 * t * e),
    sum(1.0 * j * j), sum(1.0 * j * e),
    sum(1.0 * e * e)
FROM conversations JOIN keys ON id = key_id
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4"""


def sample(row: sqlite3.Row) -> ArmSample:
    key_id, model, bucket, arm, conversations, *numbers = row
    products = [[0] * _SIZE for _ in MEASURES]
    for (i, j), product in zip(_PLACES, numbers[_SIZE:], strict=True):
        products[i][j] = products[j][i] = int(product)
    return ArmSample(
        key_id=key_id,
        model=model,
        bucket=bucket,
        arm=arm,
        conversations=conversations,
        sums=tuple(numbers[:_SIZE]),
        products=tuple(map(tuple, products)),
    )
