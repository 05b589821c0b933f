-- Suites that stop when their gates are decided: which documents were asked, of how many, in which order, and about what.
-- NULL in rows written before.

ALTER TABLE suites ADD COLUMN declared BIGINT;

ALTER TABLE samples ADD COLUMN position BIGINT;
ALTER TABLE samples ADD COLUMN cluster VARCHAR;

ALTER TABLE comparisons ADD COLUMN fixed_low DOUBLE;
ALTER TABLE comparisons ADD COLUMN fixed_high DOUBLE;
