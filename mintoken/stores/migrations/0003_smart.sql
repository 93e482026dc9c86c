-- Whether detection may choose the level of a key's requests.
ALTER TABLE keys ADD COLUMN smart INTEGER NOT NULL DEFAULT 0 CHECK (smart IN (0, 1));
