CREATE TABLE rules (
    id         TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    action     TEXT NOT NULL,
    pattern    TEXT NOT NULL,
    priority   INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Rules are part of the directory that every worker holds.
CREATE TRIGGER rules_inserted AFTER INSERT ON rules
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER rules_updated AFTER UPDATE ON rules
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER rules_deleted AFTER DELETE ON rules
BEGIN UPDATE directory SET revision = revision + 1; END;
