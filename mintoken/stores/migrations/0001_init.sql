CREATE TABLE accounts (
    id             TEXT PRIMARY KEY,
    name           TEXT NOT NULL UNIQUE,
    monthly_tokens INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE keys (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    name        TEXT NOT NULL,
    prefix      TEXT NOT NULL,
    hash        BLOB NOT NULL UNIQUE,
    intensity   TEXT NOT NULL,
    rpm         INTEGER NOT NULL,
    concurrency INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) STRICT;

-- A revoked key frees its name; one that expired keeps it, because its date can be moved.
CREATE UNIQUE INDEX keys_active_name ON keys (account_id, name) WHERE revoked_at IS NULL;

-- One row, counted up by every change of accounts or keys, so that a worker sees whether it has
-- to read them again.
CREATE TABLE directory (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO directory (id, revision) VALUES (1, 0);

CREATE TRIGGER accounts_inserted AFTER INSERT ON accounts
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER accounts_updated AFTER UPDATE ON accounts
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER accounts_deleted AFTER DELETE ON accounts
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER keys_inserted AFTER INSERT ON keys
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER keys_updated AFTER UPDATE ON keys
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER keys_deleted AFTER DELETE ON keys
BEGIN UPDATE directory SET revision = revision + 1; END;

CREATE TABLE month_usage (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    month      TEXT NOT NULL,
    used       INTEGER NOT NULL DEFAULT 0,
    reserved   INTEGER NOT NULL DEFAULT 0,
    requests   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, month)
) STRICT, WITHOUT ROWID;

-- Ids grow with time (UUIDv7), so rows kept in their order are appended.
CREATE TABLE usage (
    id                  TEXT PRIMARY KEY,
    account_id          TEXT NOT NULL REFERENCES accounts (id),
    key_id              TEXT NOT NULL REFERENCES keys (id),
    started_at          INTEGER NOT NULL,
    month               TEXT NOT NULL,
    protocol            TEXT NOT NULL,
    model               TEXT NOT NULL,
    model_served        TEXT NOT NULL DEFAULT '',
    stream              INTEGER NOT NULL,
    intensity           TEXT NOT NULL,
    reason              TEXT NOT NULL,
    arm                 TEXT NOT NULL,
    prompt_version      TEXT NOT NULL,
    input_tokens        INTEGER NOT NULL DEFAULT 0,
    output_tokens       INTEGER NOT NULL DEFAULT 0,
    cached_tokens       INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens    INTEGER NOT NULL DEFAULT 0,
    injected_tokens     INTEGER NOT NULL,
    counted_by          TEXT NOT NULL DEFAULT 'estimate',
    status              INTEGER NOT NULL DEFAULT 0,
    outcome             TEXT NOT NULL DEFAULT 'reserved',
    finish_reason       TEXT NOT NULL DEFAULT '',
    upstream_request_id TEXT NOT NULL DEFAULT '',
    first_byte_ms       INTEGER,
    duration_ms         INTEGER,
    bytes_in            INTEGER NOT NULL,
    bytes_out           INTEGER NOT NULL DEFAULT 0,
    reserved_tokens     INTEGER NOT NULL,
    charged_tokens      INTEGER NOT NULL DEFAULT 0,
    worker              TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_open ON usage (worker) WHERE outcome = 'reserved';
CREATE INDEX usage_month ON usage (month, account_id);

CREATE TRIGGER usage_reserved AFTER INSERT ON usage
BEGIN
    INSERT INTO month_usage (account_id, month, reserved, requests)
    VALUES (NEW.account_id, NEW.month, NEW.reserved_tokens, 1)
    ON CONFLICT (account_id, month) DO UPDATE
    SET reserved = reserved + NEW.reserved_tokens, requests = requests + 1;
END;

CREATE TRIGGER usage_settled AFTER UPDATE OF outcome ON usage
WHEN OLD.outcome = 'reserved' AND NEW.outcome <> 'reserved'
BEGIN
    UPDATE month_usage
    SET used = used + NEW.charged_tokens, reserved = reserved - OLD.reserved_tokens
    WHERE account_id = NEW.account_id AND month = NEW.month;
END;
