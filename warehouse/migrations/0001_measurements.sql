-- What was asked and what was measured. A moment is TIMESTAMP in UTC, not TIMESTAMPTZ: the value then reads the
-- same in every client, whatever its session time zone, and needs no time zone data on the reading side.
-- Meanings and units are COMMENTs, written from steelyard/records.py after the migrations.

CREATE TABLE studies (
    run_id            VARCHAR NOT NULL,
    study             VARCHAR NOT NULL,
    owner             VARCHAR NOT NULL,
    study_digest      VARCHAR NOT NULL,
    policy_digest     VARCHAR NOT NULL,
    study_json        VARCHAR NOT NULL,
    policy_json       VARCHAR NOT NULL,
    seed              BIGINT NOT NULL,
    blocks            BIGINT NOT NULL,
    residency         VARCHAR NOT NULL,
    residency_reason  VARCHAR,
    started_at        TIMESTAMP NOT NULL,
    finished_at       TIMESTAMP,
    status            VARCHAR NOT NULL,
    reason            VARCHAR,
    steelyard_version VARCHAR NOT NULL,
    git_commit        VARCHAR,
    hostname_digest   VARCHAR NOT NULL,
    cpu_model         VARCHAR,
    cpu_count         BIGINT NOT NULL,
    memory_bytes      BIGINT,
    accelerator       VARCHAR,
    platform          VARCHAR NOT NULL,
    python_version    VARCHAR NOT NULL,
    packages_json     VARCHAR NOT NULL,
    PRIMARY KEY (run_id)
);

CREATE TABLE arms (
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    role              VARCHAR NOT NULL,
    lever             VARCHAR,
    claim             VARCHAR,
    note              VARCHAR,
    engine            VARCHAR NOT NULL,
    engine_version    VARCHAR,
    deployment_digest VARCHAR,
    weights_digest    VARCHAR,
    tokenizer_digest  VARCHAR,
    template_digest   VARCHAR,
    args_json         VARCHAR NOT NULL,
    env_json          VARCHAR NOT NULL,
    resolved_json     VARCHAR,
    start_s           DOUBLE,
    status            VARCHAR NOT NULL,
    error             VARCHAR,
    PRIMARY KEY (run_id, arm)
);

CREATE TABLE trials (
    trial_id             VARCHAR NOT NULL,
    run_id               VARCHAR NOT NULL,
    arm                  VARCHAR NOT NULL,
    deployment_digest    VARCHAR NOT NULL,
    workload             VARCHAR NOT NULL,
    load_point           VARCHAR NOT NULL,
    block                BIGINT NOT NULL,
    position             BIGINT NOT NULL,
    started_at           TIMESTAMP NOT NULL,
    duration_s           DOUBLE NOT NULL,
    requests             BIGINT NOT NULL,
    completed            BIGINT NOT NULL,
    failed               BIGINT NOT NULL,
    input_tokens         BIGINT NOT NULL,
    output_tokens        BIGINT NOT NULL,
    cached_tokens        BIGINT,
    output_tokens_per_s  DOUBLE,
    requests_per_s       DOUBLE,
    goodput_per_s        DOUBLE,
    slo_tokens_per_s     DOUBLE,
    slo_share            DOUBLE,
    ttft_p50_s           DOUBLE,
    ttft_p95_s           DOUBLE,
    itl_p50_s            DOUBLE,
    itl_p95_s            DOUBLE,
    e2e_p50_s            DOUBLE,
    e2e_p95_s            DOUBLE,
    lateness_p95_s       DOUBLE,
    client_cpu_share     DOUBLE,
    engine_output_tokens BIGINT,
    valid                BOOLEAN NOT NULL,
    invalid_reasons      VARCHAR[] NOT NULL,
    PRIMARY KEY (trial_id)
);

CREATE TABLE requests (
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
    prompt_tokens     BIGINT NOT NULL,
    input_tokens      BIGINT,
    output_tokens     BIGINT,
    status            VARCHAR NOT NULL,
    error             VARCHAR,
    finish_reason     VARCHAR,
    met_slo           BOOLEAN,
    PRIMARY KEY (trial_id, request_index)
);

CREATE TABLE engine_metrics (
    trial_id          VARCHAR NOT NULL,
    metric            VARCHAR NOT NULL,
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    deployment_digest VARCHAR NOT NULL,
    kind              VARCHAR NOT NULL,
    value             DOUBLE NOT NULL,
    PRIMARY KEY (trial_id, metric)
);

CREATE TABLE suites (
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    suite             VARCHAR NOT NULL,
    deployment_digest VARCHAR NOT NULL,
    category          VARCHAR NOT NULL,
    task              VARCHAR NOT NULL,
    task_version      VARCHAR,
    route             VARCHAR NOT NULL,
    metric            VARCHAR NOT NULL,
    documents         BIGINT NOT NULL,
    answered          BIGINT NOT NULL,
    mean_score        DOUBLE,
    documents_digest  VARCHAR NOT NULL,
    lm_eval_version   VARCHAR NOT NULL,
    duration_s        DOUBLE NOT NULL,
    PRIMARY KEY (run_id, arm, suite)
);

CREATE TABLE samples (
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
    PRIMARY KEY (run_id, arm, suite, doc_hash, prompt_hash)
);
