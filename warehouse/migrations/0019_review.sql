-- Who submitted, who signed, and the ledger in which every decision stands.
ALTER TABLE studies ADD COLUMN submitted_by VARCHAR;
ALTER TABLE promotions ADD COLUMN packet_digest VARCHAR;
ALTER TABLE promotions ADD COLUMN valid_until TIMESTAMP;

CREATE TABLE sign_offs (
    run_id        VARCHAR NOT NULL,
    sign_off      VARCHAR NOT NULL,
    packet_digest VARCHAR NOT NULL,
    person        VARCHAR NOT NULL,
    as_role       VARCHAR NOT NULL,
    decision      VARCHAR NOT NULL,
    about         VARCHAR,
    conditions    VARCHAR,
    signed_at     TIMESTAMP NOT NULL,
    expires_at    TIMESTAMP NOT NULL,
    ledger_head   VARCHAR NOT NULL,
    public_key    VARCHAR NOT NULL,
    envelope_json VARCHAR NOT NULL,
    received_at   TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, sign_off)
);

CREATE TABLE ledger (
    chain        VARCHAR NOT NULL,
    seq          BIGINT NOT NULL,
    recorded_at  TIMESTAMP NOT NULL,
    kind         VARCHAR NOT NULL,
    run_id       VARCHAR NOT NULL,
    payload_json VARCHAR NOT NULL,
    previous     VARCHAR NOT NULL,
    entry        VARCHAR NOT NULL,
    PRIMARY KEY (chain, seq)
);
