-- What is derived from the measurements: comparisons, gates, verdicts, promotions.

CREATE TABLE comparisons (
    run_id          VARCHAR NOT NULL,
    arm             VARCHAR NOT NULL,
    category        VARCHAR NOT NULL,
    metric          VARCHAR NOT NULL,
    scope           VARCHAR NOT NULL,
    kind            VARCHAR NOT NULL,
    baseline_value  DOUBLE,
    candidate_value DOUBLE,
    estimate        DOUBLE,
    low             DOUBLE,
    high            DOUBLE,
    confidence      DOUBLE NOT NULL,
    n               BIGINT NOT NULL,
    n_missing       BIGINT NOT NULL,
    gained          BIGINT,
    lost            BIGINT,
    method          VARCHAR NOT NULL,
    PRIMARY KEY (run_id, arm, metric, scope)
);

CREATE TABLE gate_results (
    run_id     VARCHAR NOT NULL,
    arm        VARCHAR NOT NULL,
    gate       VARCHAR NOT NULL,
    category   VARCHAR NOT NULL,
    metric     VARCHAR NOT NULL,
    scope      VARCHAR NOT NULL,
    bound_kind VARCHAR NOT NULL,
    bound      DOUBLE NOT NULL,
    benefit    BOOLEAN NOT NULL,
    required   BOOLEAN NOT NULL,
    estimate   DOUBLE,
    low        DOUBLE,
    high       DOUBLE,
    n          BIGINT NOT NULL,
    outcome    VARCHAR NOT NULL,
    reason     VARCHAR NOT NULL,
    PRIMARY KEY (run_id, arm, gate, scope)
);

CREATE TABLE verdicts (
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    role              VARCHAR NOT NULL,
    verdict           VARCHAR NOT NULL,
    reasons           VARCHAR[] NOT NULL,
    deployment_digest VARCHAR,
    baseline_digest   VARCHAR,
    policy_digest     VARCHAR NOT NULL,
    decided_at        TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, arm)
);

CREATE TABLE promotions (
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    study             VARCHAR NOT NULL,
    deployment_digest VARCHAR NOT NULL,
    baseline_digest   VARCHAR NOT NULL,
    policy_digest     VARCHAR NOT NULL,
    promoted_at       TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, arm)
);
