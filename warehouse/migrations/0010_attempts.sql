-- Which attempt of a lever at a claim on one baseline an arm is. NULL in rows written before, and for controls.

ALTER TABLE arms ADD COLUMN attempt BIGINT;
