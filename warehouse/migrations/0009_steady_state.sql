-- Marks of trials that were not in a steady state, and bounds of their percentiles. NULL in rows written before.

ALTER TABLE trials ADD COLUMN itl_drift DOUBLE;
ALTER TABLE trials ADD COLUMN itl_drift_p DOUBLE;
ALTER TABLE trials ADD COLUMN ttft_p95_low_s DOUBLE;
ALTER TABLE trials ADD COLUMN ttft_p95_high_s DOUBLE;
ALTER TABLE trials ADD COLUMN itl_p95_low_s DOUBLE;
ALTER TABLE trials ADD COLUMN itl_p95_high_s DOUBLE;
ALTER TABLE trials ADD COLUMN e2e_p95_low_s DOUBLE;
ALTER TABLE trials ADD COLUMN e2e_p95_high_s DOUBLE;
ALTER TABLE trials ADD COLUMN saturated BOOLEAN;
