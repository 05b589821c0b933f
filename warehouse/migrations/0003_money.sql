-- The price book as a run used it, and what a million tokens cost.

CREATE TABLE prices (
    run_id       VARCHAR NOT NULL,
    price        VARCHAR NOT NULL,
    usd_per_hour DOUBLE NOT NULL,
    source       VARCHAR NOT NULL,
    dated        DATE NOT NULL,
    note         VARCHAR,
    used         BOOLEAN NOT NULL,
    PRIMARY KEY (run_id, price)
);

CREATE TABLE unit_costs (
    run_id                        VARCHAR NOT NULL,
    arm                           VARCHAR NOT NULL,
    deployment_digest             VARCHAR,
    load_point                    VARCHAR NOT NULL,
    price                         VARCHAR NOT NULL,
    usd_per_hour                  DOUBLE NOT NULL,
    blocks                        BIGINT NOT NULL,
    confidence                    DOUBLE NOT NULL,
    usd_per_million_output_tokens DOUBLE,
    output_low                    DOUBLE,
    output_high                   DOUBLE,
    usd_per_million_slo_tokens    DOUBLE,
    slo_low                       DOUBLE,
    slo_high                      DOUBLE,
    PRIMARY KEY (run_id, arm, load_point)
);
