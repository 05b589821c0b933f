-- Raw rows lose their primary keys: over years they are a hundred million, and an index of as many texts would take more
-- memory than the machine has. They are written with their trial or suite, whose own key says whether they are there.
-- DuckDB cannot drop a key, so the tables are made again; NOT NULL and the order of the columns stay.

CREATE TABLE raw_requests (
    trial_id          VARCHAR NOT NULL,
    request_index     BIGINT NOT NULL,
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    deployment_digest VARCHAR NOT NULL,
    prompt_hash       VARCHAR NOT NULL,
    scheduled_s       DOUBLE NOT NULL,
    sent_s            DOUBLE,
    first_token_s     DOUBLE,
    end_s             DOUBLE,
    token_times_s     DOUBLE[] NOT NULL,
    prompt_tokens     BIGINT,
    input_tokens      BIGINT,
    output_tokens     BIGINT,
    status            VARCHAR NOT NULL,
    error             VARCHAR,
    finish_reason     VARCHAR,
    met_slo           BOOLEAN
);
INSERT INTO raw_requests BY NAME SELECT * FROM requests;
DROP TABLE requests;
ALTER TABLE raw_requests RENAME TO requests;

CREATE TABLE raw_engine_metrics (
    trial_id          VARCHAR NOT NULL,
    metric            VARCHAR NOT NULL,
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    deployment_digest VARCHAR NOT NULL,
    kind              VARCHAR NOT NULL,
    value             DOUBLE NOT NULL
);
INSERT INTO raw_engine_metrics BY NAME SELECT * FROM engine_metrics;
DROP TABLE engine_metrics;
ALTER TABLE raw_engine_metrics RENAME TO engine_metrics;

CREATE TABLE raw_samples (
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    suite             VARCHAR NOT NULL,
    deployment_digest VARCHAR NOT NULL,
    doc_hash          VARCHAR NOT NULL,
    prompt_hash       VARCHAR NOT NULL,
    subgroup          VARCHAR,
    prompt            VARCHAR NOT NULL,
    target            VARCHAR,
    answer            VARCHAR,
    score             DOUBLE,
    finish_reason     VARCHAR,
    error             VARCHAR,
    judge_safe        DOUBLE,
    judge_answer      VARCHAR,
    position          BIGINT,
    cluster           VARCHAR
);
INSERT INTO raw_samples BY NAME SELECT * FROM samples;
DROP TABLE samples;
ALTER TABLE raw_samples RENAME TO samples;

-- What a publisher has to write again.
CREATE TABLE revisions (
    run_id   VARCHAR NOT NULL,
    revision VARCHAR NOT NULL,
    PRIMARY KEY (run_id)
);
COMMENT ON TABLE revisions IS 'Which state the raw rows of a run are in (requests, engine metrics, samples): what publishing goes by.';
COMMENT ON COLUMN revisions.run_id IS 'Run of a study: one uninterrupted or resumed execution.';
COMMENT ON COLUMN revisions.revision IS 'A random name; another one after every write of raw rows of the run.';
INSERT INTO revisions
SELECT run_id, 'before-0017' FROM (
    SELECT DISTINCT run_id FROM requests
    UNION SELECT DISTINCT run_id FROM samples
    UNION SELECT DISTINCT run_id FROM engine_metrics
);

-- What retention took away.
CREATE TABLE thinnings (
    run_id          VARCHAR NOT NULL,
    thinned_at      TIMESTAMP NOT NULL,
    after_days      BIGINT NOT NULL,
    keep            DOUBLE NOT NULL,
    requests_before BIGINT NOT NULL,
    requests_kept   BIGINT NOT NULL,
    PRIMARY KEY (run_id)
);

ALTER TABLE arms ADD COLUMN model VARCHAR;
-- Every arm of a study serves its model; the study of earlier runs is there as JSON, keys in order.
UPDATE arms
SET model = nullif(regexp_extract(studies.study_json, '"model":\{[^{}]*"name":"([^"\\]*)"', 1), '')
FROM studies
WHERE studies.run_id = arms.run_id;
