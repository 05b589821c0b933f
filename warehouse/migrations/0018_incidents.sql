-- What changed over the nights, and what was taken back because of it.
CREATE TABLE incidents (
    run_id            VARCHAR NOT NULL,
    incident          VARCHAR NOT NULL,
    study             VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    what              VARCHAR NOT NULL,
    metric            VARCHAR NOT NULL,
    scope             VARCHAR NOT NULL,
    since_run_id      VARCHAR NOT NULL,
    nights            BIGINT NOT NULL,
    before            DOUBLE NOT NULL,
    after             DOUBLE NOT NULL,
    p_value           DOUBLE NOT NULL,
    least             DOUBLE NOT NULL,
    deployment_digest VARCHAR,
    baseline_digest   VARCHAR,
    opened_at         TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, incident)
);

CREATE TABLE incident_ends (
    run_id   VARCHAR NOT NULL,
    incident VARCHAR NOT NULL,
    ending   VARCHAR NOT NULL,
    value    DOUBLE,
    reason   VARCHAR NOT NULL,
    ended_at TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, incident)
);

CREATE TABLE revocations (
    run_id            VARCHAR NOT NULL,
    arm               VARCHAR NOT NULL,
    study             VARCHAR NOT NULL,
    confirmed_by      VARCHAR NOT NULL,
    incident          VARCHAR NOT NULL,
    deployment_digest VARCHAR NOT NULL,
    baseline_digest   VARCHAR NOT NULL,
    reason            VARCHAR NOT NULL,
    revoked_at        TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, arm)
);

CREATE TABLE reinstatements (
    run_id        VARCHAR NOT NULL,
    arm           VARCHAR NOT NULL,
    reinstated_by VARCHAR NOT NULL,
    reason        VARCHAR NOT NULL,
    reinstated_at TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, arm)
);
