-- Since when the arms have had their present shares, in UTC milliseconds; 0 is from the beginning.
-- Only what has the same is compared: what changed meanwhile changed for all arms at once.
ALTER TABLE keys ADD COLUMN shares_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

-- Whether the product is stopped on a model of a key, and since when it is so.
DROP TABLE stopped;
CREATE TABLE verdicts (
    key_id   TEXT NOT NULL REFERENCES keys (id),
    model    TEXT NOT NULL,
    stopped  INTEGER NOT NULL CHECK (stopped IN (0, 1)),
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (key_id, model)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER verdicts_inserted AFTER INSERT ON verdicts
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER verdicts_updated AFTER UPDATE ON verdicts
BEGIN UPDATE directory SET revision = revision + 1; END;
