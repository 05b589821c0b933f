"""Signing as a Dagster job: takes in an envelope that was signed where the key is.

No key ever comes here. Who reaches a writable web server can start this job, and can sign nothing by it: the signature
is checked against the registry, and everything else as `steelyard sign` does.
"""

import dagster as dg

WAIT_S = 60.0


@dg.op(
    description="Checks a signed decision against registry, packet and conflict rule, records it, and promotes.",
    config_schema={"envelope": dg.Field(str, description="What `steelyard sign ... --print` printed.")},
)
def take_sign_off(context: dg.OpExecutionContext) -> None:
    """Record one envelope; a refusal fails the op with its reason."""
    from assets.session import Session
    from assets.signing import put, take
    from assets.tracing import rows_link
    from steelyard.errors import InputError

    envelope = context.op_config["envelope"].strip()
    with Session(wait_s=WAIT_S) as session:
        try:
            found = take(session.store, envelope, put(envelope))
        except InputError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    row = found.row
    context.add_output_metadata(
        {
            "promoted": ", ".join(each.arm for each in found.promoted) or "nobody",
            "not yet": "\n".join(f"{arm}: {'; '.join(why)}" for arm, why in found.refused.items()) or "nobody",
            "run_id": row.run_id,
            "person": row.person,
            "role": row.role,
            "decision": row.decision,
            "packet_digest": row.packet_digest,
            "expires_at": row.expires_at.isoformat(),
            "rows": rows_link(row.run_id, "sign_offs"),
            "promotions": rows_link(row.run_id, "promotions"),
        }
    )


@dg.job(
    name="sign_off",
    description="A reviewer's signed decision on a packet: `steelyard sign ... --print` makes the envelope.",
    executor_def=dg.in_process_executor,
)
def sign_off_job() -> None:
    """One sign-off."""
    take_sign_off()
