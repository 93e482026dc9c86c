"""The SQL of what an experiment's arms add up to."""

import sqlite3

from mintoken.reports import MEASURES, ArmSample

_N = len(MEASURES)
_PAIRS = [(i, j) for i in range(_N) for j in range(i, _N)]

# Each conversation is one observation. Its bucket goes by powers of four, from 256 bytes of its
# opening on. Products are summed as REAL: 64 bits would not hold them, 53 are exact enough.
_OF_CONVERSATIONS = """
SELECT key_id, model, arm,
    CASE WHEN max(opening_bytes) < 256 THEN 0 WHEN max(opening_bytes) < 1024 THEN 1
        WHEN max(opening_bytes) < 4096 THEN 2 WHEN max(opening_bytes) < 16384 THEN 3 ELSE 4
        END AS bucket,
    count(*) AS x0, sum(input_tokens) AS x1, sum(output_tokens) AS x2, sum(cached_tokens) AS x3,
    sum(reasoning_tokens) AS x4, sum(injected_tokens) AS x5, sum(counted_by = 'estimate') AS x6
FROM usage
WHERE arm <> '' AND arm <> 'stopped' AND started_at >= :since_ms
    AND outcome IN ('ok', 'client_closed') AND status = 200
    AND (:key_id IS NULL OR key_id = :key_id)
    AND (:account_id IS NULL OR account_id = :account_id)
GROUP BY key_id, model, arm, conversation"""

SAMPLES = f"""
SELECT key_id, model, bucket, arm, count(*), {", ".join(f"sum(x{i})" for i in range(_N))},
    {", ".join(f"sum(1.0 * x{i} * x{j})" for i, j in _PAIRS)}
FROM ({_OF_CONVERSATIONS})
GROUP BY key_id, model, bucket, arm
ORDER BY key_id, model, bucket, arm"""  # noqa: S608 - made of the constants above


def sample(row: sqlite3.Row) -> ArmSample:
    sums, moments = row[5 : 5 + _N], dict(zip(_PAIRS, row[5 + _N :], strict=True))
    return ArmSample(
        key_id=row[0],
        model=row[1],
        bucket=row[2],
        arm=row[3],
        conversations=row[4],
        sums=tuple(sums),
        products=tuple(
            tuple(round(moments[min(i, j), max(i, j)]) for j in range(_N)) for i in range(_N)
        ),
    )
