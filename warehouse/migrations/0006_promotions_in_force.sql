-- What tells whether a promotion still holds, and what the digest of a study covers. NULL in rows written before.

ALTER TABLE studies ADD COLUMN driver_version VARCHAR;
ALTER TABLE prices ADD COLUMN place BIGINT;
