-- What the rows of experiments add up to, so that nobody has to read them to say what was saved.
-- `experiment` is the first of the keys that replaced each other; `bucket` is the size of the
-- conversation's opening. A purge takes away what it deletes. What one conversation used:
CREATE TABLE experiment_conversations (
    experiment       TEXT NOT NULL,
    model            TEXT NOT NULL,
    epoch            INTEGER NOT NULL,
    arm              TEXT NOT NULL,
    conversation     TEXT NOT NULL,
    bucket           INTEGER NOT NULL,
    requests         INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    injected_tokens  INTEGER NOT NULL,
    estimated        INTEGER NOT NULL,
    unreported       INTEGER NOT NULL,
    PRIMARY KEY (experiment, model, epoch, arm, conversation)
) STRICT, WITHOUT ROWID;

-- Over the conversations of one arm in one stratum: how many they are, the sum of each measure, and
-- of each product of two, which would not fit into 64 bits and is exact up to 2^53.
CREATE TABLE experiment_samples (
    experiment       TEXT NOT NULL,
    model            TEXT NOT NULL,
    epoch            INTEGER NOT NULL,
    bucket           INTEGER NOT NULL,
    arm              TEXT NOT NULL,
    conversations    INTEGER NOT NULL DEFAULT 0,
    requests         INTEGER NOT NULL DEFAULT 0,
    input_tokens     INTEGER NOT NULL DEFAULT 0,
    output_tokens    INTEGER NOT NULL DEFAULT 0,
    cached_tokens    INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    injected_tokens  INTEGER NOT NULL DEFAULT 0,
    estimated        INTEGER NOT NULL DEFAULT 0,
    unreported       INTEGER NOT NULL DEFAULT 0,
    requests_requests     REAL NOT NULL DEFAULT 0,
    requests_input        REAL NOT NULL DEFAULT 0,
    requests_output       REAL NOT NULL DEFAULT 0,
    requests_cached       REAL NOT NULL DEFAULT 0,
    requests_reasoning    REAL NOT NULL DEFAULT 0,
    requests_injected     REAL NOT NULL DEFAULT 0,
    requests_estimated    REAL NOT NULL DEFAULT 0,
    requests_unreported   REAL NOT NULL DEFAULT 0,
    input_input           REAL NOT NULL DEFAULT 0,
    input_output          REAL NOT NULL DEFAULT 0,
    input_cached          REAL NOT NULL DEFAULT 0,
    input_reasoning       REAL NOT NULL DEFAULT 0,
    input_injected        REAL NOT NULL DEFAULT 0,
    input_estimated       REAL NOT NULL DEFAULT 0,
    input_unreported      REAL NOT NULL DEFAULT 0,
    output_output         REAL NOT NULL DEFAULT 0,
    output_cached         REAL NOT NULL DEFAULT 0,
    output_reasoning      REAL NOT NULL DEFAULT 0,
    output_injected       REAL NOT NULL DEFAULT 0,
    output_estimated      REAL NOT NULL DEFAULT 0,
    output_unreported     REAL NOT NULL DEFAULT 0,
    cached_cached         REAL NOT NULL DEFAULT 0,
    cached_reasoning      REAL NOT NULL DEFAULT 0,
    cached_injected       REAL NOT NULL DEFAULT 0,
    cached_estimated      REAL NOT NULL DEFAULT 0,
    cached_unreported     REAL NOT NULL DEFAULT 0,
    reasoning_reasoning   REAL NOT NULL DEFAULT 0,
    reasoning_injected    REAL NOT NULL DEFAULT 0,
    reasoning_estimated   REAL NOT NULL DEFAULT 0,
    reasoning_unreported  REAL NOT NULL DEFAULT 0,
    injected_injected     REAL NOT NULL DEFAULT 0,
    injected_estimated    REAL NOT NULL DEFAULT 0,
    injected_unreported   REAL NOT NULL DEFAULT 0,
    estimated_estimated   REAL NOT NULL DEFAULT 0,
    estimated_unreported  REAL NOT NULL DEFAULT 0,
    unreported_unreported REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment, model, epoch, bucket, arm)
) STRICT, WITHOUT ROWID;

INSERT INTO experiment_conversations
SELECT iif(k.origin = '', k.id, k.origin), u.model, u.epoch, u.arm, u.conversation,
    (u.opening_bytes >= 256) + (u.opening_bytes >= 1024) + (u.opening_bytes >= 4096)
        + (u.opening_bytes >= 16384) + (u.opening_bytes >= 65536) + (u.opening_bytes >= 262144),
    count(*), sum(u.input_tokens), sum(u.output_tokens),
    sum(u.cached_tokens), sum(u.reasoning_tokens), sum(u.injected_tokens),
    sum(u.counted_by = 'estimate'), sum(u.counted_by <> 'upstream')
FROM usage u JOIN keys k ON k.id = u.key_id
WHERE u.arm NOT IN ('', 'stopped') AND u.outcome IN ('ok', 'client_closed') AND u.status = 200
GROUP BY 1, 2, 3, 4, 5;

INSERT INTO experiment_samples
SELECT experiment, model, epoch, bucket, arm, count(*),
    sum(requests), sum(input_tokens), sum(output_tokens), sum(cached_tokens),
    sum(reasoning_tokens), sum(injected_tokens), sum(estimated), sum(unreported),
    sum(1.0 * requests * requests), sum(1.0 * requests * input_tokens),
    sum(1.0 * requests * output_tokens), sum(1.0 * requests * cached_tokens),
    sum(1.0 * requests * reasoning_tokens), sum(1.0 * requests * injected_tokens),
    sum(1.0 * requests * estimated), sum(1.0 * requests * unreported),
    sum(1.0 * input_tokens * input_tokens), sum(1.0 * input_tokens * output_tokens),
    sum(1.0 * input_tokens * cached_tokens), sum(1.0 * input_tokens * reasoning_tokens),
    sum(1.0 * input_tokens * injected_tokens), sum(1.0 * input_tokens * estimated),
    sum(1.0 * input_tokens * unreported), sum(1.0 * output_tokens * output_tokens),
    sum(1.0 * output_tokens * cached_tokens), sum(1.0 * output_tokens * reasoning_tokens),
    sum(1.0 * output_tokens * injected_tokens), sum(1.0 * output_tokens * estimated),
    sum(1.0 * output_tokens * unreported), sum(1.0 * cached_tokens * cached_tokens),
    sum(1.0 * cached_tokens * reasoning_tokens), sum(1.0 * cached_tokens * injected_tokens),
    sum(1.0 * cached_tokens * estimated), sum(1.0 * cached_tokens * unreported),
    sum(1.0 * reasoning_tokens * reasoning_tokens), sum(1.0 * reasoning_tokens * injected_tokens),
    sum(1.0 * reasoning_tokens * estimated), sum(1.0 * reasoning_tokens * unreported),
    sum(1.0 * injected_tokens * injected_tokens), sum(1.0 * injected_tokens * estimated),
    sum(1.0 * injected_tokens * unreported), sum(1.0 * estimated * estimated),
    sum(1.0 * estimated * unreported), sum(1.0 * unreported * unreported)
FROM experiment_conversations GROUP BY 1, 2, 3, 4, 5;

-- A new conversation begins with nothing, so what follows knows only of changes.
CREATE TRIGGER experiment_conversation_new AFTER INSERT ON experiment_conversations
BEGIN
    INSERT INTO experiment_samples (experiment, model, epoch, bucket, arm, conversations)
    VALUES (NEW.experiment, NEW.model, NEW.epoch, NEW.bucket, NEW.arm, 1)
    ON CONFLICT DO UPDATE SET conversations = conversations + 1;
END;

CREATE TRIGGER experiment_conversation_changed AFTER UPDATE ON experiment_conversations
BEGIN
    UPDATE experiment_samples SET
        requests = requests + NEW.requests - OLD.requests,
        input_tokens = input_tokens + NEW.input_tokens - OLD.input_tokens,
        output_tokens = output_tokens + NEW.output_tokens - OLD.output_tokens,
        cached_tokens = cached_tokens + NEW.cached_tokens - OLD.cached_tokens,
        reasoning_tokens = reasoning_tokens + NEW.reasoning_tokens - OLD.reasoning_tokens,
        injected_tokens = injected_tokens + NEW.injected_tokens - OLD.injected_tokens,
        estimated = estimated + NEW.estimated - OLD.estimated,
        unreported = unreported + NEW.unreported - OLD.unreported,
        requests_requests = requests_requests + 1.0 * NEW.requests * NEW.requests
            - 1.0 * OLD.requests * OLD.requests,
        requests_input = requests_input + 1.0 * NEW.requests * NEW.input_tokens
            - 1.0 * OLD.requests * OLD.input_tokens,
        requests_output = requests_output + 1.0 * NEW.requests * NEW.output_tokens
            - 1.0 * OLD.requests * OLD.output_tokens,
        requests_cached = requests_cached + 1.0 * NEW.requests * NEW.cached_tokens
            - 1.0 * OLD.requests * OLD.cached_tokens,
        requests_reasoning = requests_reasoning + 1.0 * NEW.requests * NEW.reasoning_tokens
            - 1.0 * OLD.requests * OLD.reasoning_tokens,
        requests_injected = requests_injected + 1.0 * NEW.requests * NEW.injected_tokens
            - 1.0 * OLD.requests * OLD.injected_tokens,
        requests_estimated = requests_estimated + 1.0 * NEW.requests * NEW.estimated
            - 1.0 * OLD.requests * OLD.estimated,
        requests_unreported = requests_unreported + 1.0 * NEW.requests * NEW.unreported
            - 1.0 * OLD.requests * OLD.unreported,
        input_input = input_input + 1.0 * NEW.input_tokens * NEW.input_tokens
            - 1.0 * OLD.input_tokens * OLD.input_tokens,
        input_output = input_output + 1.0 * NEW.input_tokens * NEW.output_tokens
            - 1.0 * OLD.input_tokens * OLD.output_tokens,
        input_cached = input_cached + 1.0 * NEW.input_tokens * NEW.cached_tokens
            - 1.0 * OLD.input_tokens * OLD.cached_tokens,
        input_reasoning = input_reasoning + 1.0 * NEW.input_tokens * NEW.reasoning_tokens
            - 1.0 * OLD.input_tokens * OLD.reasoning_tokens,
        input_injected = input_injected + 1.0 * NEW.input_tokens * NEW.injected_tokens
            - 1.0 * OLD.input_tokens * OLD.injected_tokens,
        input_estimated = input_estimated + 1.0 * NEW.input_tokens * NEW.estimated
            - 1.0 * OLD.input_tokens * OLD.estimated,
        input_unreported = input_unreported + 1.0 * NEW.input_tokens * NEW.unreported
            - 1.0 * OLD.input_tokens * OLD.unreported,
        output_output = output_output + 1.0 * NEW.output_tokens * NEW.output_tokens
            - 1.0 * OLD.output_tokens * OLD.output_tokens,
        output_cached = output_cached + 1.0 * NEW.output_tokens * NEW.cached_tokens
            - 1.0 * OLD.output_tokens * OLD.cached_tokens,
        output_reasoning = output_reasoning + 1.0 * NEW.output_tokens * NEW.reasoning_tokens
            - 1.0 * OLD.output_tokens * OLD.reasoning_tokens,
        output_injected = output_injected + 1.0 * NEW.output_tokens * NEW.injected_tokens
            - 1.0 * OLD.output_tokens * OLD.injected_tokens,
        output_estimated = output_estimated + 1.0 * NEW.output_tokens * NEW.estimated
            - 1.0 * OLD.output_tokens * OLD.estimated,
        output_unreported = output_unreported + 1.0 * NEW.output_tokens * NEW.unreported
            - 1.0 * OLD.output_tokens * OLD.unreported,
        cached_cached = cached_cached + 1.0 * NEW.cached_tokens * NEW.cached_tokens
            - 1.0 * OLD.cached_tokens * OLD.cached_tokens,
        cached_reasoning = cached_reasoning + 1.0 * NEW.cached_tokens * NEW.reasoning_tokens
            - 1.0 * OLD.cached_tokens * OLD.reasoning_tokens,
        cached_injected = cached_injected + 1.0 * NEW.cached_tokens * NEW.injected_tokens
            - 1.0 * OLD.cached_tokens * OLD.injected_tokens,
        cached_estimated = cached_estimated + 1.0 * NEW.cached_tokens * NEW.estimated
            - 1.0 * OLD.cached_tokens * OLD.estimated,
        cached_unreported = cached_unreported + 1.0 * NEW.cached_tokens * NEW.unreported
            - 1.0 * OLD.cached_tokens * OLD.unreported,
        reasoning_reasoning = reasoning_reasoning + 1.0 * NEW.reasoning_tokens * NEW.reasoning_tokens
            - 1.0 * OLD.reasoning_tokens * OLD.reasoning_tokens,
        reasoning_injected = reasoning_injected + 1.0 * NEW.reasoning_tokens * NEW.injected_tokens
            - 1.0 * OLD.reasoning_tokens * OLD.injected_tokens,
        reasoning_estimated = reasoning_estimated + 1.0 * NEW.reasoning_tokens * NEW.estimated
            - 1.0 * OLD.reasoning_tokens * OLD.estimated,
        reasoning_unreported = reasoning_unreported + 1.0 * NEW.reasoning_tokens * NEW.unreported
            - 1.0 * OLD.reasoning_tokens * OLD.unreported,
        injected_injected = injected_injected + 1.0 * NEW.injected_tokens * NEW.injected_tokens
            - 1.0 * OLD.injected_tokens * OLD.injected_tokens,
        injected_estimated = injected_estimated + 1.0 * NEW.injected_tokens * NEW.estimated
            - 1.0 * OLD.injected_tokens * OLD.estimated,
        injected_unreported = injected_unreported + 1.0 * NEW.injected_tokens * NEW.unreported
            - 1.0 * OLD.injected_tokens * OLD.unreported,
        estimated_estimated = estimated_estimated + 1.0 * NEW.estimated * NEW.estimated
            - 1.0 * OLD.estimated * OLD.estimated,
        estimated_unreported = estimated_unreported + 1.0 * NEW.estimated * NEW.unreported
            - 1.0 * OLD.estimated * OLD.unreported,
        unreported_unreported = unreported_unreported + 1.0 * NEW.unreported * NEW.unreported
            - 1.0 * OLD.unreported * OLD.unreported
    WHERE experiment = NEW.experiment AND model = NEW.model AND epoch = NEW.epoch
        AND bucket = NEW.bucket AND arm = NEW.arm;
END;

CREATE TRIGGER experiment_conversation_gone AFTER DELETE ON experiment_conversations
BEGIN
    UPDATE experiment_samples SET conversations = conversations - 1
    WHERE experiment = OLD.experiment AND model = OLD.model AND epoch = OLD.epoch
        AND bucket = OLD.bucket AND arm = OLD.arm;
    DELETE FROM experiment_samples
    WHERE experiment = OLD.experiment AND model = OLD.model AND epoch = OLD.epoch
        AND bucket = OLD.bucket AND arm = OLD.arm AND conversations = 0;
END;

CREATE TRIGGER usage_sampled AFTER UPDATE OF outcome ON usage
WHEN NEW.arm NOT IN ('', 'stopped') AND OLD.outcome = 'reserved'
    AND NEW.outcome IN ('ok', 'client_closed') AND NEW.status = 200
BEGIN
    INSERT INTO experiment_conversations
    SELECT iif(origin = '', id, origin), NEW.model, NEW.epoch, NEW.arm, NEW.conversation,
        (NEW.opening_bytes >= 256) + (NEW.opening_bytes >= 1024) + (NEW.opening_bytes >= 4096)
            + (NEW.opening_bytes >= 16384) + (NEW.opening_bytes >= 65536)
            + (NEW.opening_bytes >= 262144),
        0, 0, 0, 0, 0, 0, 0, 0
    FROM keys WHERE id = NEW.key_id
    ON CONFLICT DO NOTHING;
    UPDATE experiment_conversations SET
        requests = requests + 1, input_tokens = input_tokens + NEW.input_tokens,
        output_tokens = output_tokens + NEW.output_tokens,
        cached_tokens = cached_tokens + NEW.cached_tokens,
        reasoning_tokens = reasoning_tokens + NEW.reasoning_tokens,
        injected_tokens = injected_tokens + NEW.injected_tokens,
        estimated = estimated + (NEW.counted_by = 'estimate'),
        unreported = unreported + (NEW.counted_by <> 'upstream')
    WHERE experiment = (SELECT iif(origin = '', id, origin) FROM keys WHERE id = NEW.key_id)
        AND model = NEW.model AND epoch = NEW.epoch AND arm = NEW.arm
        AND conversation = NEW.conversation;
END;

CREATE TRIGGER usage_unsampled AFTER DELETE ON usage
WHEN OLD.arm NOT IN ('', 'stopped') AND OLD.outcome IN ('ok', 'client_closed') AND OLD.status = 200
BEGIN
    UPDATE experiment_conversations SET
        requests = requests - 1, input_tokens = input_tokens - OLD.input_tokens,
        output_tokens = output_tokens - OLD.output_tokens,
        cached_tokens = cached_tokens - OLD.cached_tokens,
        reasoning_tokens = reasoning_tokens - OLD.reasoning_tokens,
        injected_tokens = injected_tokens - OLD.injected_tokens,
        estimated = estimated - (OLD.counted_by = 'estimate'),
        unreported = unreported - (OLD.counted_by <> 'upstream')
    WHERE experiment = (SELECT iif(origin = '', id, origin) FROM keys WHERE id = OLD.key_id)
        AND model = OLD.model AND epoch = OLD.epoch AND arm = OLD.arm
        AND conversation = OLD.conversation;
    DELETE FROM experiment_conversations
    WHERE experiment = (SELECT iif(origin = '', id, origin) FROM keys WHERE id = OLD.key_id)
        AND model = OLD.model AND epoch = OLD.epoch AND arm = OLD.arm
        AND conversation = OLD.conversation AND requests = 0;
END;
