-- Where a run's wall time went.
CREATE TABLE wall_times (
    run_id   VARCHAR NOT NULL,
    began_at TIMESTAMP NOT NULL,
    step     VARCHAR NOT NULL,
    engines  VARCHAR NOT NULL,
    wall_s   DOUBLE NOT NULL,
    PRIMARY KEY (run_id, began_at, step, engines)
);
