-- Settled rows in the order of their commits, over all workers: commits are made one at a time, so
-- no place is filled after a later one. AUTOINCREMENT, because a purge must not free a place again.
CREATE TABLE feed (
    place      INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    usage_id   TEXT NOT NULL UNIQUE
) STRICT;
CREATE INDEX feed_account ON feed (account_id, place);

CREATE TRIGGER usage_fed AFTER UPDATE OF outcome ON usage
WHEN OLD.outcome = 'reserved' AND NEW.outcome <> 'reserved'
BEGIN
    INSERT INTO feed (account_id, usage_id) VALUES (NEW.account_id, NEW.id);
END;

CREATE TRIGGER usage_unfed AFTER DELETE ON usage
BEGIN
    DELETE FROM feed WHERE usage_id = OLD.id;
END;
