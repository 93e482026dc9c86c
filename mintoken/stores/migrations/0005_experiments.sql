-- The arms of a key's experiment, in percent of its conversations.
ALTER TABLE keys ADD COLUMN control INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN concise INTEGER NOT NULL DEFAULT 0;
-- The first key of a row of rotations, by which the experiment goes on; '' is the key itself.
ALTER TABLE keys ADD COLUMN origin TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN auto_stop INTEGER NOT NULL DEFAULT 1 CHECK (auto_stop IN (0, 1));

-- A keyed hash, no content; both stay empty where no experiment runs.
ALTER TABLE usage ADD COLUMN conversation TEXT NOT NULL DEFAULT '';
ALTER TABLE usage ADD COLUMN opening_bytes INTEGER NOT NULL DEFAULT 0;

-- Where the product does not pay.
CREATE TABLE stopped (
    key_id TEXT NOT NULL REFERENCES keys (id),
    model  TEXT NOT NULL,
    PRIMARY KEY (key_id, model)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER stopped_inserted AFTER INSERT ON stopped
BEGIN UPDATE directory SET revision = revision + 1; END;
CREATE TRIGGER stopped_deleted AFTER DELETE ON stopped
BEGIN UPDATE directory SET revision = revision + 1; END;
