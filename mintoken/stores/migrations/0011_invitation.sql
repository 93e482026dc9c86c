-- The link that lets the first owner in: one at most, as the keyed hash of its end. Whoever gets a
-- user first, by whatever way, ends it.
CREATE TABLE invitation (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    hash       BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER invitation_over AFTER INSERT ON users
BEGIN DELETE FROM invitation; END;
