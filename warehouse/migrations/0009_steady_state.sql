-- Marks of trials that were not in a steady state. NULL in rows written before.

ALTER TABLE trials ADD COLUMN itl_drift DOUBLE;
ALTER TABLE trials ADD COLUMN itl_drift_p DOUBLE;
ALTER TABLE trials ADD COLUMN saturated BOOLEAN;
