-- How many of a suite's answers were taken over: an arm may need more of the baseline's than an earlier run had asked.

ALTER TABLE suites ADD COLUMN reused BIGINT;
-- Until now only whole suites were taken over.
UPDATE suites SET reused = documents WHERE reused_from IS NOT NULL;
