-- Probes of the searches for the largest arrival rate at which an SLO holds.

CREATE TABLE probes (
    run_id              VARCHAR NOT NULL,
    arm                 VARCHAR NOT NULL,
    scope               VARCHAR NOT NULL,
    block               BIGINT NOT NULL,
    number              BIGINT NOT NULL,
    deployment_digest   VARCHAR NOT NULL,
    position            BIGINT NOT NULL,
    rate                DOUBLE NOT NULL,
    started_at          TIMESTAMP NOT NULL,
    duration_s          DOUBLE NOT NULL,
    requests            BIGINT NOT NULL,
    failed              BIGINT NOT NULL,
    met                 BIGINT NOT NULL,
    saturated           BOOLEAN,
    error               VARCHAR,
    due_s               DOUBLE[] NOT NULL,
    ttft_s              DOUBLE[] NOT NULL,
    itl_s               DOUBLE[] NOT NULL,
    e2e_s               DOUBLE[] NOT NULL,
    output_tokens_per_s DOUBLE,
    lateness_p95_s      DOUBLE,
    client_cpu_share    DOUBLE,
    valid               BOOLEAN NOT NULL,
    invalid_reasons     VARCHAR[] NOT NULL,
    PRIMARY KEY (run_id, arm, scope, block, number)
);
