-- The baseline's answers of an earlier run, taken after some were asked again. NULL where a run asked itself.

ALTER TABLE suites ADD COLUMN reused_from VARCHAR;
ALTER TABLE suites ADD COLUMN rechecked BIGINT;
ALTER TABLE suites ADD COLUMN changed BIGINT;
