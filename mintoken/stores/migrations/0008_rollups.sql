-- What settled rows add up to, so that nobody has to read them. A purge leaves this as it is.
-- `hour` is that of `started_at` (UTC, counted from 1970).
CREATE TABLE usage_hours (
    account_id       TEXT NOT NULL REFERENCES accounts (id),
    hour             INTEGER NOT NULL,
    key_id           TEXT NOT NULL,
    model            TEXT NOT NULL,
    intensity        TEXT NOT NULL,
    requests         INTEGER NOT NULL,
    errors           INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    injected_tokens  INTEGER NOT NULL,
    charged_tokens   INTEGER NOT NULL,
    first_bytes      INTEGER NOT NULL,
    first_byte_ms    INTEGER NOT NULL,
    durations        INTEGER NOT NULL,
    duration_ms      INTEGER NOT NULL,
    PRIMARY KEY (account_id, hour, key_id, model, intensity)
) STRICT, WITHOUT ROWID;

-- The same by one dimension only and by hour or day, which is much less to read for a year. An
-- account's hours are added to it when they are over, in the transaction of the first row of a
-- later hour: a settled row costs one sum and not seven. `start` is an hour, of which `step` follow.
CREATE TABLE usage_totals (
    account_id       TEXT NOT NULL REFERENCES accounts (id),
    dimension        TEXT NOT NULL,
    step             INTEGER NOT NULL,
    start            INTEGER NOT NULL,
    name             TEXT NOT NULL,
    requests         INTEGER NOT NULL,
    errors           INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    injected_tokens  INTEGER NOT NULL,
    charged_tokens   INTEGER NOT NULL,
    first_bytes      INTEGER NOT NULL,
    first_byte_ms    INTEGER NOT NULL,
    durations        INTEGER NOT NULL,
    duration_ms      INTEGER NOT NULL,
    PRIMARY KEY (account_id, dimension, step, start, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_dimensions (
    dimension TEXT NOT NULL,
    step      INTEGER NOT NULL,
    PRIMARY KEY (dimension, step)
) STRICT, WITHOUT ROWID;
INSERT INTO usage_dimensions VALUES
    ('key', 1), ('key', 24), ('model', 1), ('model', 24), ('level', 1), ('level', 24);

-- What is in usage_totals of an account: all its hours before this one, and nothing else.
CREATE TABLE totals_until (
    account_id TEXT PRIMARY KEY REFERENCES accounts (id),
    hour       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many requests took how long, for percentiles: `ms` is the least of its bucket, and the next
-- bucket begins at the next of these: 0, 1, 2, 3, 4, 6, 8, 12, 16 ... 2^n, 1.5 * 2^n, up to 4 days.
CREATE TABLE latency_buckets (ms INTEGER PRIMARY KEY) STRICT;
WITH RECURSIVE powers (ms) AS (SELECT 1 UNION ALL SELECT 2 * ms FROM powers WHERE ms < 1 << 28)
INSERT INTO latency_buckets (ms)
SELECT 0 UNION SELECT ms FROM powers UNION SELECT ms * 3 / 2 FROM powers;

CREATE TABLE latency_days (
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    day         INTEGER NOT NULL,
    ms          INTEGER NOT NULL,
    first_bytes INTEGER NOT NULL,
    durations   INTEGER NOT NULL,
    PRIMARY KEY (account_id, day, ms)
) STRICT, WITHOUT ROWID;

-- When a key was last used, within a second. Not in `keys`, because every change there makes all
-- workers read the directory again.
CREATE TABLE key_usage (
    key_id       TEXT PRIMARY KEY REFERENCES keys (id),
    last_used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO usage_hours
SELECT account_id, started_at / 3600000, key_id, model, intensity, count(*),
    sum(outcome NOT IN ('ok', 'client_closed') OR status >= 400),
    sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(reasoning_tokens),
    sum(injected_tokens), sum(charged_tokens), count(first_byte_ms), ifnull(sum(first_byte_ms), 0),
    count(duration_ms), ifnull(sum(duration_ms), 0)
FROM usage WHERE outcome <> 'reserved' GROUP BY 1, 2, 3, 4, 5;

-- Of what was purged before there were roll-ups, only the sums of each month are known.
INSERT INTO usage_hours
SELECT account_id, CAST(strftime('%s', month || '-01') AS INTEGER) / 3600,
    '(purged)', '(purged)', '(purged)', requests, 0, input_tokens, output_tokens, cached_tokens,
    reasoning_tokens, injected_tokens, charged_tokens, 0, 0, 0, 0
FROM purged_usage;

INSERT INTO totals_until SELECT account_id, max(hour) FROM usage_hours GROUP BY account_id;

INSERT INTO usage_totals
SELECT h.account_id, d.dimension, 1, h.hour,
    CASE d.dimension WHEN 'key' THEN h.key_id WHEN 'model' THEN h.model ELSE h.intensity END,
    sum(h.requests), sum(h.errors), sum(h.input_tokens), sum(h.output_tokens),
    sum(h.cached_tokens), sum(h.reasoning_tokens), sum(h.injected_tokens), sum(h.charged_tokens),
    sum(h.first_bytes), sum(h.first_byte_ms), sum(h.durations), sum(h.duration_ms)
FROM usage_dimensions d CROSS JOIN usage_hours h JOIN totals_until u USING (account_id)
WHERE d.step = 1 AND h.hour < u.hour GROUP BY 1, 2, 3, 4, 5;

INSERT INTO usage_totals
SELECT account_id, dimension, 24, start / 24 * 24, name, sum(requests), sum(errors),
    sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(reasoning_tokens),
    sum(injected_tokens), sum(charged_tokens), sum(first_bytes), sum(first_byte_ms),
    sum(durations), sum(duration_ms)
FROM usage_totals GROUP BY 1, 2, 3, 4, 5;

INSERT INTO latency_days
SELECT account_id, day, (SELECT max(b.ms) FROM latency_buckets b WHERE b.ms <= took),
    sum(is_first_byte), sum(NOT is_first_byte)
FROM (
    SELECT account_id, started_at / 86400000 AS day, first_byte_ms AS took, 1 AS is_first_byte
    FROM usage WHERE outcome <> 'reserved' AND first_byte_ms IS NOT NULL
    UNION ALL
    SELECT account_id, started_at / 86400000, duration_ms, 0
    FROM usage WHERE outcome <> 'reserved' AND duration_ms IS NOT NULL
)
GROUP BY 1, 2, 3;

INSERT INTO key_usage SELECT key_id, max(started_at) FROM usage GROUP BY key_id;

-- What is over is added up before anything is added to a later hour.
CREATE TRIGGER hours_over AFTER UPDATE OF hour ON totals_until
BEGIN
    INSERT INTO usage_totals (account_id, dimension, step, start, name, requests, errors,
        input_tokens, output_tokens, cached_tokens, reasoning_tokens, injected_tokens,
        charged_tokens, first_bytes, first_byte_ms, durations, duration_ms)
    SELECT h.account_id, d.dimension, d.step, h.hour / d.step * d.step,
        CASE d.dimension WHEN 'key' THEN h.key_id WHEN 'model' THEN h.model ELSE h.intensity END,
        sum(h.requests), sum(h.errors), sum(h.input_tokens), sum(h.output_tokens),
        sum(h.cached_tokens), sum(h.reasoning_tokens), sum(h.injected_tokens),
        sum(h.charged_tokens), sum(h.first_bytes), sum(h.first_byte_ms), sum(h.durations),
        sum(h.duration_ms)
    FROM usage_hours h CROSS JOIN usage_dimensions d
    WHERE h.account_id = NEW.account_id AND h.hour >= OLD.hour AND h.hour < NEW.hour
    GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (account_id, dimension, step, start, name) DO UPDATE
    SET requests = requests + excluded.requests, errors = errors + excluded.errors,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        injected_tokens = injected_tokens + excluded.injected_tokens,
        charged_tokens = charged_tokens + excluded.charged_tokens,
        first_bytes = first_bytes + excluded.first_bytes,
        first_byte_ms = first_byte_ms + excluded.first_byte_ms,
        durations = durations + excluded.durations,
        duration_ms = duration_ms + excluded.duration_ms;
END;

CREATE TRIGGER usage_rolled_up AFTER UPDATE OF outcome ON usage
WHEN OLD.outcome = 'reserved' AND NEW.outcome <> 'reserved'
BEGIN
    INSERT INTO totals_until (account_id, hour) VALUES (NEW.account_id, NEW.started_at / 3600000)
    ON CONFLICT (account_id) DO UPDATE SET hour = excluded.hour WHERE excluded.hour > hour;

    INSERT INTO usage_hours (account_id, hour, key_id, model, intensity, requests, errors,
        input_tokens, output_tokens, cached_tokens, reasoning_tokens, injected_tokens,
        charged_tokens, first_bytes, first_byte_ms, durations, duration_ms)
    VALUES (
        NEW.account_id, NEW.started_at / 3600000, NEW.key_id, NEW.model, NEW.intensity, 1,
        NEW.outcome NOT IN ('ok', 'client_closed') OR NEW.status >= 400,
        NEW.input_tokens, NEW.output_tokens, NEW.cached_tokens, NEW.reasoning_tokens,
        NEW.injected_tokens, NEW.charged_tokens,
        NEW.first_byte_ms IS NOT NULL, ifnull(NEW.first_byte_ms, 0),
        NEW.duration_ms IS NOT NULL, ifnull(NEW.duration_ms, 0))
    ON CONFLICT (account_id, hour, key_id, model, intensity) DO UPDATE
    SET requests = requests + 1, errors = errors + excluded.errors,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        injected_tokens = injected_tokens + excluded.injected_tokens,
        charged_tokens = charged_tokens + excluded.charged_tokens,
        first_bytes = first_bytes + excluded.first_bytes,
        first_byte_ms = first_byte_ms + excluded.first_byte_ms,
        durations = durations + excluded.durations,
        duration_ms = duration_ms + excluded.duration_ms;

    INSERT INTO latency_days (account_id, day, ms, first_bytes, durations)
    SELECT NEW.account_id, NEW.started_at / 86400000,
        (SELECT max(ms) FROM latency_buckets WHERE ms <= NEW.first_byte_ms), 1, 0
    WHERE NEW.first_byte_ms IS NOT NULL
    ON CONFLICT (account_id, day, ms) DO UPDATE SET first_bytes = first_bytes + 1;
    INSERT INTO latency_days (account_id, day, ms, first_bytes, durations)
    SELECT NEW.account_id, NEW.started_at / 86400000,
        (SELECT max(ms) FROM latency_buckets WHERE ms <= NEW.duration_ms), 0, 1
    WHERE NEW.duration_ms IS NOT NULL
    ON CONFLICT (account_id, day, ms) DO UPDATE SET durations = durations + 1;
END;

-- A row of an hour that is in the totals already: it took long, or the clock was put back.
CREATE TRIGGER usage_late AFTER UPDATE OF outcome ON usage
WHEN OLD.outcome = 'reserved' AND NEW.outcome <> 'reserved' AND NEW.started_at / 3600000 < (
    SELECT hour FROM totals_until WHERE account_id = NEW.account_id)
BEGIN
    INSERT INTO usage_totals (account_id, dimension, step, start, name, requests, errors,
        input_tokens, output_tokens, cached_tokens, reasoning_tokens, injected_tokens,
        charged_tokens, first_bytes, first_byte_ms, durations, duration_ms)
    SELECT NEW.account_id, d.dimension, d.step, NEW.started_at / 3600000 / d.step * d.step,
        CASE d.dimension
            WHEN 'key' THEN NEW.key_id WHEN 'model' THEN NEW.model ELSE NEW.intensity END,
        1, NEW.outcome NOT IN ('ok', 'client_closed') OR NEW.status >= 400,
        NEW.input_tokens, NEW.output_tokens, NEW.cached_tokens, NEW.reasoning_tokens,
        NEW.injected_tokens, NEW.charged_tokens,
        NEW.first_byte_ms IS NOT NULL, ifnull(NEW.first_byte_ms, 0),
        NEW.duration_ms IS NOT NULL, ifnull(NEW.duration_ms, 0)
    FROM usage_dimensions d WHERE true
    ON CONFLICT (account_id, dimension, step, start, name) DO UPDATE
    SET requests = requests + excluded.requests, errors = errors + excluded.errors,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        injected_tokens = injected_tokens + excluded.injected_tokens,
        charged_tokens = charged_tokens + excluded.charged_tokens,
        first_bytes = first_bytes + excluded.first_bytes,
        first_byte_ms = first_byte_ms + excluded.first_byte_ms,
        durations = durations + excluded.durations,
        duration_ms = duration_ms + excluded.duration_ms;
END;

CREATE TRIGGER usage_of_key AFTER INSERT ON usage
BEGIN
    INSERT INTO key_usage (key_id, last_used_at) VALUES (NEW.key_id, NEW.started_at)
    ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at
    WHERE excluded.last_used_at >= last_used_at + 1000;
END;

-- Pages of an account's requests, newest first. What can be asked for is in here as far as it never
-- changes, so that rows are read only where they match.
CREATE INDEX usage_account ON usage (account_id, id, model, intensity, key_id);
CREATE INDEX usage_failed ON usage (account_id, outcome, id, model, intensity, key_id)
WHERE outcome NOT IN ('reserved', 'ok');
