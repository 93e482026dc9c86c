-- What was added up of usage rows that are deleted, so that a month's sums stay what they were.
CREATE TABLE purged_usage (
    account_id       TEXT NOT NULL REFERENCES accounts (id),
    month            TEXT NOT NULL,
    requests         INTEGER NOT NULL,
    input_tokens     INTEGER NOT NULL,
    output_tokens    INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    injected_tokens  INTEGER NOT NULL,
    charged_tokens   INTEGER NOT NULL,
    PRIMARY KEY (account_id, month)
) STRICT, WITHOUT ROWID;
