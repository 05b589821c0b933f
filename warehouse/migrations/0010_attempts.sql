-- Which attempt of a candidate on one baseline an arm is. NULL in rows written before, and for controls.

ALTER TABLE arms ADD COLUMN attempt BIGINT;
