-- What other tools measured comes into the same tables, and not every tool tells everything. Unknown is NULL.

ALTER TABLE studies ALTER COLUMN seed DROP NOT NULL;
ALTER TABLE studies ALTER COLUMN cpu_count DROP NOT NULL;
ALTER TABLE trials ALTER COLUMN input_tokens DROP NOT NULL;
ALTER TABLE trials ALTER COLUMN output_tokens DROP NOT NULL;
ALTER TABLE requests ALTER COLUMN prompt_tokens DROP NOT NULL;
ALTER TABLE suites ALTER COLUMN duration_s DROP NOT NULL;
