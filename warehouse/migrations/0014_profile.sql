-- The baseline's profile: its steps, operators, the machine's ceilings, and what levers are predicted to bring.

CREATE TABLE profiles (
    run_id               VARCHAR NOT NULL,
    arm                  VARCHAR NOT NULL,
    load_point           VARCHAR NOT NULL,
    deployment_digest    VARCHAR NOT NULL,
    profiled_at          TIMESTAMP NOT NULL,
    requests             BIGINT NOT NULL,
    output_tokens        BIGINT,
    plain_s              DOUBLE,
    traced_s             DOUBLE,
    overhead             DOUBLE,
    steps                BIGINT NOT NULL,
    traced_steps_s       DOUBLE,
    idle_s               DOUBLE,
    sequences            DOUBLE,
    max_sequences        BIGINT,
    kv_tokens            DOUBLE,
    kv_capacity_tokens   BIGINT,
    preemptions          BIGINT,
    cache_queried_tokens BIGINT,
    cache_hit_tokens     BIGINT,
    queue_s              DOUBLE,
    prefill_s            DOUBLE,
    decode_s             DOUBLE,
    error                VARCHAR,
    PRIMARY KEY (run_id, arm, load_point)
);

CREATE TABLE profile_steps (
    run_id              VARCHAR NOT NULL,
    arm                 VARCHAR NOT NULL,
    load_point          VARCHAR NOT NULL,
    step                BIGINT NOT NULL,
    start_s             DOUBLE NOT NULL,
    seconds             DOUBLE NOT NULL,
    until_next_s        DOUBLE NOT NULL,
    idle_s              DOUBLE NOT NULL,
    context_requests    BIGINT NOT NULL,
    context_tokens      BIGINT NOT NULL,
    context_entries     BIGINT,
    context_pairs       BIGINT,
    generation_requests BIGINT NOT NULL,
    generation_tokens   BIGINT NOT NULL,
    generation_entries  BIGINT,
    generation_pairs    BIGINT,
    gemm_s              DOUBLE NOT NULL,
    attention_s         DOUBLE NOT NULL,
    normalisation_s     DOUBLE NOT NULL,
    elementwise_s       DOUBLE NOT NULL,
    sampling_s          DOUBLE NOT NULL,
    communication_s     DOUBLE NOT NULL,
    host_s              DOUBLE NOT NULL,
    scheduling_s        DOUBLE NOT NULL,
    PRIMARY KEY (run_id, arm, load_point, step)
);

CREATE TABLE operators (
    run_id     VARCHAR NOT NULL,
    arm        VARCHAR NOT NULL,
    load_point VARCHAR NOT NULL,
    phase      VARCHAR NOT NULL,
    category   VARCHAR NOT NULL,
    operator   VARCHAR NOT NULL,
    calls      BIGINT NOT NULL,
    seconds    DOUBLE NOT NULL,
    PRIMARY KEY (run_id, arm, load_point, phase, category, operator)
);

CREATE TABLE ceilings (
    run_id VARCHAR NOT NULL,
    kind   VARCHAR NOT NULL,
    dtype  VARCHAR NOT NULL,
    size   BIGINT NOT NULL,
    value  DOUBLE NOT NULL,
    PRIMARY KEY (run_id, kind, dtype, size)
);

CREATE TABLE rooflines (
    run_id                VARCHAR NOT NULL,
    arm                   VARCHAR NOT NULL,
    load_point            VARCHAR NOT NULL,
    phase                 VARCHAR NOT NULL,
    steps                 BIGINT NOT NULL,
    seconds               DOUBLE NOT NULL,
    tokens                BIGINT NOT NULL,
    operations            DOUBLE NOT NULL,
    weight_bytes          DOUBLE,
    kv_bytes              DOUBLE,
    peak_operations_per_s DOUBLE,
    peak_bytes_per_s      DOUBLE,
    mfu                   DOUBLE,
    mbu                   DOUBLE,
    PRIMARY KEY (run_id, arm, load_point, phase)
);

CREATE TABLE opportunities (
    run_id       VARCHAR NOT NULL,
    name         VARCHAR NOT NULL,
    load_point   VARCHAR NOT NULL,
    tried_by     VARCHAR,
    lever        VARCHAR,
    rank         BIGINT NOT NULL,
    mechanism    VARCHAR NOT NULL,
    evidence     VARCHAR NOT NULL,
    predicted    DOUBLE,
    low          DOUBLE,
    high         DOUBLE,
    reason       VARCHAR,
    risk         VARCHAR NOT NULL,
    cost_s       DOUBLE,
    predicted_at TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, name, load_point)
);
