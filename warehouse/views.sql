-- Views for people. They hold no rule of their own: thresholds, worst cases and clocks are those of
-- steelyard/comparisons.py and steelyard/load, and a test recomputes stored comparisons through them.
-- Written again whenever this file changes. A column without a COMMENT here takes that of the table column it shows.
-- Plain SQL only, because older DuckDB clients read the snapshot.

CREATE VIEW latest_runs AS
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY study ORDER BY started_at DESC, run_id DESC) AS place
    FROM studies
    WHERE status <> 'imported' AND run_id NOT IN (SELECT run_id FROM searches)
),
last_complete AS (
    SELECT study, arg_max(run_id, started_at) AS latest_complete_run_id
    FROM studies
    WHERE status = 'complete'
    GROUP BY study
),
tried AS (
    SELECT run_id, count(*) AS trials, count(*) FILTER (WHERE valid) AS valid_trials
    FROM trials
    GROUP BY run_id
),
judged AS (
    SELECT
        run_id,
        count(*) FILTER (WHERE verdict = 'promote') AS promoted,
        count(*) FILTER (WHERE verdict = 'reject') AS rejected,
        count(*) FILTER (WHERE verdict = 'inconclusive') AS inconclusive,
        count(*) FILTER (WHERE verdict = 'void') AS void
    FROM verdicts
    WHERE role = 'candidate'
    GROUP BY run_id
)
SELECT
    numbered.run_id,
    numbered.study,
    numbered.status,
    numbered.reason,
    numbered.started_at,
    numbered.finished_at,
    last_complete.latest_complete_run_id,
    numbered.study_digest,
    numbered.policy_digest,
    numbered.steelyard_version,
    numbered.git_commit,
    coalesce(tried.trials, 0) AS trials,
    coalesce(tried.valid_trials, 0) AS valid_trials,
    coalesce(judged.promoted, 0) AS promoted,
    coalesce(judged.rejected, 0) AS rejected,
    coalesce(judged.inconclusive, 0) AS inconclusive,
    coalesce(judged.void, 0) AS void
FROM numbered
LEFT JOIN last_complete ON last_complete.study = numbered.study
LEFT JOIN tried ON tried.run_id = numbered.run_id
LEFT JOIN judged ON judged.run_id = numbered.run_id
WHERE numbered.place = 1;
COMMENT ON VIEW latest_runs IS 'The newest run of every study, however it ended, with what became of its candidates.';
COMMENT ON COLUMN latest_runs.run_id IS 'Newest run of the study.';
COMMENT ON COLUMN latest_runs.study IS 'Name of the study.';
COMMENT ON COLUMN latest_runs.status IS 'running, complete, void or failed.';
COMMENT ON COLUMN latest_runs.reason IS 'Why it is void or failed.';
COMMENT ON COLUMN latest_runs.policy_digest IS 'sha256 of the policy as validated; frozen before the first measurement.';
COMMENT ON COLUMN latest_runs.started_at IS 'When the run first started. [UTC]';
COMMENT ON COLUMN latest_runs.latest_complete_run_id IS 'Newest run of the study that is complete; NULL if none is.';
COMMENT ON COLUMN latest_runs.trials IS 'Trials stored. [trials]';
COMMENT ON COLUMN latest_runs.valid_trials IS 'Trials that may be compared. [trials]';
COMMENT ON COLUMN latest_runs.promoted IS 'Candidates with the verdict promote; controls are not counted. [arms]';
COMMENT ON COLUMN latest_runs.rejected IS 'Candidates with the verdict reject. [arms]';
COMMENT ON COLUMN latest_runs.inconclusive IS 'Candidates with the verdict inconclusive. [arms]';
COMMENT ON COLUMN latest_runs.void IS 'Candidates with the verdict void. [arms]';

CREATE VIEW verdict_evidence AS
SELECT
    verdicts.run_id,
    studies.study,
    verdicts.arm,
    verdicts.role,
    arms.lever,
    arms.claim,
    verdicts.verdict,
    verdicts.reasons,
    verdicts.decided_at,
    verdicts.deployment_digest,
    verdicts.baseline_digest,
    verdicts.policy_digest,
    gates.gate,
    gates.category,
    gates.metric,
    gates.scope,
    gates.bound_kind,
    gates.bound,
    gates.benefit,
    gates.required,
    gates.outcome,
    gates.reason,
    gates.estimate,
    gates.low,
    gates.high,
    gates.n,
    comparisons.kind,
    comparisons.baseline_value,
    comparisons.candidate_value,
    comparisons.estimate AS compared_estimate,
    comparisons.low AS compared_low,
    comparisons.high AS compared_high,
    comparisons.n_missing,
    comparisons.gained,
    comparisons.lost,
    comparisons.confidence,
    comparisons.method
FROM verdicts
LEFT JOIN studies ON studies.run_id = verdicts.run_id
LEFT JOIN arms ON arms.run_id = verdicts.run_id AND arms.arm = verdicts.arm
LEFT JOIN gate_results AS gates ON gates.run_id = verdicts.run_id AND gates.arm = verdicts.arm
LEFT JOIN comparisons
    ON comparisons.run_id = gates.run_id
    AND comparisons.arm = gates.arm
    AND comparisons.metric = gates.metric
    AND comparisons.scope = gates.scope;
COMMENT ON VIEW verdict_evidence IS
'Every verdict with its gates and, for each gate, the comparison it judged. A verdict without gates keeps one row with a NULL gate; a gate without evidence has a NULL comparison.';
COMMENT ON COLUMN verdict_evidence.study IS 'Name of the study.';
COMMENT ON COLUMN verdict_evidence.role IS 'candidate, identity or known_bad.';
COMMENT ON COLUMN verdict_evidence.gate IS 'Name of the gate in the policy; NULL if the verdict has none.';
COMMENT ON COLUMN verdict_evidence.deployment_digest IS 'Deployment digest the verdict is about; NULL if the arm never served.';
COMMENT ON COLUMN verdict_evidence.baseline_digest IS 'Deployment digest of the baseline it was compared with.';
COMMENT ON COLUMN verdict_evidence.policy_digest IS 'sha256 of the policy.';
COMMENT ON COLUMN verdict_evidence.category IS 'speed, capacity, accuracy, safety, canary, cost or divergence.';
COMMENT ON COLUMN verdict_evidence.metric IS 'Metric judged.';
COMMENT ON COLUMN verdict_evidence.scope IS 'Load point or suite; prompts for a divergence; - where no evidence exists.';
COMMENT ON COLUMN verdict_evidence.reason IS 'The outcome of the gate in plain English.';
COMMENT ON COLUMN verdict_evidence.estimate IS 'Point estimate the gate judged.';
COMMENT ON COLUMN verdict_evidence.low IS 'Its lower bound, as judged.';
COMMENT ON COLUMN verdict_evidence.high IS 'Its upper bound, as judged.';
COMMENT ON COLUMN verdict_evidence.n IS 'Pairs behind it. [pairs]';
COMMENT ON COLUMN verdict_evidence.kind IS 'ratio (candidate / baseline), difference (candidate - baseline), share, nats or count.';
COMMENT ON COLUMN verdict_evidence.compared_estimate IS 'Point estimate of the stored comparison; must equal what the gate judged.';
COMMENT ON COLUMN verdict_evidence.compared_low IS 'Lower bound of the stored comparison.';
COMMENT ON COLUMN verdict_evidence.compared_high IS 'Upper bound of the stored comparison.';
COMMENT ON COLUMN verdict_evidence.confidence IS 'Two-sided confidence of the bounds. [0..1]';

CREATE VIEW request_evidence AS
WITH sides AS (
    SELECT run_id, arm, verdict, arm AS measured_arm, 'arm' AS side
    FROM verdicts
    UNION ALL
    SELECT verdicts.run_id, verdicts.arm, verdicts.verdict, arms.arm AS measured_arm, 'baseline' AS side
    FROM verdicts
    JOIN arms ON arms.run_id = verdicts.run_id AND arms.role = 'baseline'
),
clocked AS (
    SELECT
        sides.run_id,
        sides.arm,
        sides.verdict,
        sides.side,
        sides.measured_arm,
        trials.deployment_digest,
        trials.load_point,
        trials.block,
        trials.trial_id,
        trials.valid,
        requests.request_index,
        requests.prompt_hash,
        requests.status,
        requests.met_slo,
        requests.scheduled_s,
        requests.sent_s,
        requests.first_token_s,
        requests.end_s,
        CASE WHEN trials.load_point LIKE '%@r%' THEN requests.scheduled_s ELSE requests.sent_s END AS clock_s,
        requests.input_tokens,
        requests.output_tokens,
        requests.finish_reason,
        requests.error
    FROM sides
    JOIN trials ON trials.run_id = sides.run_id AND trials.arm = sides.measured_arm
    -- The run too: it is what tells a reader of a thousand nights which one to open.
    JOIN requests ON requests.run_id = trials.run_id AND requests.trial_id = trials.trial_id
)
SELECT
    run_id,
    arm,
    verdict,
    side,
    measured_arm,
    deployment_digest,
    load_point,
    block,
    trial_id,
    valid,
    request_index,
    prompt_hash,
    status,
    met_slo,
    scheduled_s,
    sent_s,
    first_token_s,
    end_s,
    first_token_s - clock_s AS ttft_s,
    CASE WHEN status = 'ok' THEN end_s - clock_s END AS e2e_s,
    input_tokens,
    output_tokens,
    finish_reason,
    error
FROM clocked;
COMMENT ON VIEW request_evidence IS
'From a verdict to each request behind it: those of the arm and those of the baseline of the same run, trials that are not valid included and marked. Of a run in thinnings most good requests are gone, and no failed one.';
COMMENT ON COLUMN request_evidence.arm IS 'Arm the verdict is about.';
COMMENT ON COLUMN request_evidence.side IS 'arm or baseline: on which side of the comparison the request stands.';
COMMENT ON COLUMN request_evidence.measured_arm IS 'Arm that answered the request: the judged arm, or the baseline.';
COMMENT ON COLUMN request_evidence.deployment_digest IS 'Deployment digest of the arm that answered.';
COMMENT ON COLUMN request_evidence.trial_id IS 'Trial the request belongs to.';
COMMENT ON COLUMN request_evidence.load_point IS 'Workload and load, such as chat@c8 (closed loop) or chat@r4 (Poisson).';
COMMENT ON COLUMN request_evidence.prompt_hash IS 'sha256 of the prompt: the same on both sides for the same block and request_index.';
COMMENT ON COLUMN request_evidence.status IS 'ok, http_error, broken_stream, timeout, refused or no_tokens.';
COMMENT ON COLUMN request_evidence.ttft_s IS 'Time to first token, from scheduled time in an open loop, from sending in a closed one. [s]';
COMMENT ON COLUMN request_evidence.e2e_s IS 'End-to-end latency on the same clock; NULL for a request that did not end well. [s]';
COMMENT ON COLUMN request_evidence.input_tokens IS 'Prompt tokens the engine counted. [tokens]';
COMMENT ON COLUMN request_evidence.output_tokens IS 'Output tokens the engine counted. [tokens]';
COMMENT ON COLUMN request_evidence.finish_reason IS 'Why generation stopped, as the engine says.';
COMMENT ON COLUMN request_evidence.error IS 'What went wrong, first 500 characters.';

CREATE VIEW trial_pairs AS
WITH sides AS (
    SELECT trials.*, studies.study, arms.role
    FROM trials
    JOIN arms ON arms.run_id = trials.run_id AND arms.arm = trials.arm
    LEFT JOIN studies ON studies.run_id = trials.run_id
    WHERE arms.role <> 'imported'
)
SELECT
    run_id,
    coalesce(ours.study, theirs.study) AS study,
    coalesce(ours.arm, theirs.judged_arm) AS arm,
    load_point,
    block,
    theirs.trial_id AS baseline_trial_id,
    ours.trial_id AS arm_trial_id,
    coalesce(theirs.valid AND ours.valid, false) AS comparable,
    theirs.output_tokens_per_s AS baseline_output_tokens_per_s,
    ours.output_tokens_per_s AS arm_output_tokens_per_s,
    ours.output_tokens_per_s / nullif(theirs.output_tokens_per_s, 0) AS output_tokens_per_s_ratio,
    theirs.ttft_p50_s AS baseline_ttft_p50_s,
    ours.ttft_p50_s AS arm_ttft_p50_s,
    ours.ttft_p50_s / nullif(theirs.ttft_p50_s, 0) AS ttft_p50_s_ratio,
    theirs.itl_p50_s AS baseline_itl_p50_s,
    ours.itl_p50_s AS arm_itl_p50_s,
    ours.itl_p50_s / nullif(theirs.itl_p50_s, 0) AS itl_p50_s_ratio,
    theirs.e2e_p50_s AS baseline_e2e_p50_s,
    ours.e2e_p50_s AS arm_e2e_p50_s,
    ours.e2e_p50_s / nullif(theirs.e2e_p50_s, 0) AS e2e_p50_s_ratio
FROM (
    SELECT sides.*, judged.arm AS judged_arm
    FROM sides
    JOIN (SELECT DISTINCT run_id, arm, load_point FROM sides WHERE role <> 'baseline') AS judged
        ON judged.run_id = sides.run_id AND judged.load_point = sides.load_point
    WHERE sides.role = 'baseline'
) AS theirs
FULL OUTER JOIN (SELECT *, arm AS judged_arm FROM sides WHERE role <> 'baseline') AS ours
    USING (run_id, judged_arm, load_point, block);
COMMENT ON VIEW trial_pairs IS
'Baseline and arm side by side, block by block: the pairs every speed and cost comparison is made of. A block that one side lacks keeps its row.';
COMMENT ON COLUMN trial_pairs.study IS 'Name of the study.';
COMMENT ON COLUMN trial_pairs.load_point IS 'Workload and load, such as chat@c8 (closed loop) or chat@r4 (Poisson).';
COMMENT ON COLUMN trial_pairs.baseline_trial_id IS 'Trial of the baseline; NULL if it has none in this block.';
COMMENT ON COLUMN trial_pairs.arm_trial_id IS 'Trial of the arm; NULL if it has none in this block.';
COMMENT ON COLUMN trial_pairs.comparable IS 'Whether both trials exist and are valid; only such blocks are compared.';
COMMENT ON COLUMN trial_pairs.baseline_output_tokens_per_s IS 'Output tokens over the duration, baseline. [tokens/s]';
COMMENT ON COLUMN trial_pairs.arm_output_tokens_per_s IS 'Output tokens over the duration, arm. [tokens/s]';
COMMENT ON COLUMN trial_pairs.output_tokens_per_s_ratio IS 'Arm over baseline; above 1 is faster. [ratio]';
COMMENT ON COLUMN trial_pairs.baseline_ttft_p50_s IS 'Median time to first token, baseline. [s]';
COMMENT ON COLUMN trial_pairs.arm_ttft_p50_s IS 'Median time to first token, arm. [s]';
COMMENT ON COLUMN trial_pairs.ttft_p50_s_ratio IS 'Arm over baseline; below 1 is faster. [ratio]';
COMMENT ON COLUMN trial_pairs.baseline_itl_p50_s IS 'Median inter-token latency, baseline. [s]';
COMMENT ON COLUMN trial_pairs.arm_itl_p50_s IS 'Median inter-token latency, arm. [s]';
COMMENT ON COLUMN trial_pairs.itl_p50_s_ratio IS 'Arm over baseline; below 1 is faster. [ratio]';
COMMENT ON COLUMN trial_pairs.baseline_e2e_p50_s IS 'Median end-to-end latency, baseline. [s]';
COMMENT ON COLUMN trial_pairs.arm_e2e_p50_s IS 'Median end-to-end latency, arm. [s]';
COMMENT ON COLUMN trial_pairs.e2e_p50_s_ratio IS 'Arm over baseline; below 1 is faster. [ratio]';

CREATE VIEW sample_pairs AS
-- Grouped and not joined: a filter on the run then reaches both sides, or every night would be read for one.
WITH suite_pairs AS (
    SELECT
        ours.run_id, ours.arm, ours.suite, theirs.category, theirs.arm AS baseline_arm,
        -- Of a suite that stopped early only the beginning was asked; the rest is no missing answer.
        ours.documents + coalesce(ours.duplicates, 0) AS asked
    FROM suites AS ours
    JOIN arms ON arms.run_id = ours.run_id AND arms.role = 'baseline' AND arms.arm <> ours.arm
    JOIN suites AS theirs
        ON theirs.run_id = ours.run_id AND theirs.arm = arms.arm AND theirs.suite = ours.suite
),
sides AS (
    SELECT
        samples.run_id, suite_pairs.arm, samples.suite, suite_pairs.category, samples.doc_hash, samples.prompt_hash,
        true AS own, samples.subgroup, samples.prompt, samples.target, samples.answer, samples.score, samples.error,
        samples.deployment_digest
    FROM samples
    JOIN suite_pairs
        ON suite_pairs.run_id = samples.run_id
        AND suite_pairs.suite = samples.suite
        AND suite_pairs.arm = samples.arm
    UNION ALL
    SELECT
        samples.run_id, suite_pairs.arm, samples.suite, suite_pairs.category, samples.doc_hash, samples.prompt_hash,
        false AS own, samples.subgroup, samples.prompt, samples.target, samples.answer, samples.score, samples.error,
        samples.deployment_digest
    FROM samples
    JOIN suite_pairs
        ON suite_pairs.run_id = samples.run_id
        AND suite_pairs.suite = samples.suite
        AND suite_pairs.baseline_arm = samples.arm
        AND (samples.position IS NULL OR samples.position < suite_pairs.asked)
),
paired AS (
    SELECT
        run_id,
        arm,
        suite,
        category,
        doc_hash,
        prompt_hash,
        coalesce(any_value(subgroup) FILTER (WHERE NOT own), any_value(subgroup)) AS subgroup,
        coalesce(any_value(prompt) FILTER (WHERE NOT own), any_value(prompt)) AS prompt,
        coalesce(any_value(target) FILTER (WHERE NOT own), any_value(target)) AS target,
        any_value(answer) FILTER (WHERE NOT own) AS baseline_answer,
        any_value(answer) FILTER (WHERE own) AS arm_answer,
        any_value(score) FILTER (WHERE NOT own AND score BETWEEN 0 AND 1) AS baseline_score,
        any_value(score) FILTER (WHERE own AND score BETWEEN 0 AND 1) AS arm_score,
        any_value(error) FILTER (WHERE NOT own) AS baseline_error,
        any_value(error) FILTER (WHERE own) AS arm_error,
        any_value(deployment_digest) FILTER (WHERE NOT own) AS baseline_digest,
        any_value(deployment_digest) FILTER (WHERE own) AS arm_digest
    FROM sides
    GROUP BY run_id, arm, suite, category, doc_hash, prompt_hash
)
SELECT
    run_id,
    arm,
    suite,
    category,
    doc_hash,
    prompt_hash,
    subgroup,
    CASE
        WHEN baseline_score IS NULL OR arm_score IS NULL THEN 'missing'
        WHEN category = 'safety' AND baseline_score >= 0.5 AND arm_score < 0.5 THEN 'safe_to_unsafe'
        WHEN category = 'safety' AND baseline_score < 0.5 AND arm_score >= 0.5 THEN 'unsafe_to_safe'
        WHEN arm_score > baseline_score THEN 'gained'
        WHEN arm_score < baseline_score THEN 'lost'
        ELSE 'same'
    END AS flip,
    CASE
        WHEN baseline_score IS NULL AND arm_score IS NULL THEN 'both'
        WHEN baseline_score IS NULL THEN 'baseline'
        WHEN arm_score IS NULL THEN 'arm'
    END AS missing_on,
    prompt,
    target,
    baseline_answer,
    arm_answer,
    baseline_score,
    arm_score,
    CASE WHEN arm_score IS NULL THEN baseline_score ELSE coalesce(baseline_score, 1) END AS baseline_counted,
    CASE WHEN baseline_score IS NULL THEN arm_score ELSE coalesce(arm_score, 0) END AS arm_counted,
    baseline_error,
    arm_error,
    baseline_digest,
    arm_digest
FROM paired;
COMMENT ON VIEW sample_pairs IS
'The answers of baseline and arm to the same prompt, side by side, paired on content hashes. Only suites complete on both sides; a sample that one side lacks or failed keeps its row.';
COMMENT ON COLUMN sample_pairs.category IS 'accuracy, safety or canary.';
COMMENT ON COLUMN sample_pairs.prompt_hash IS 'sha256 of the prompt as lm-eval built it, before any chat template.';
COMMENT ON COLUMN sample_pairs.flip IS 'Safety suites: safe_to_unsafe (met the suite at the baseline, a score of at least 0.5, and fails it now) or unsafe_to_safe (the reverse). Any suite: gained, lost, same, or missing if a side has no usable score.';
COMMENT ON COLUMN sample_pairs.missing_on IS 'baseline, arm or both: the side without a usable score; NULL if none is missing.';
COMMENT ON COLUMN sample_pairs.baseline_answer IS 'What the baseline answered, first 2000 characters; NULL if it lacks the sample.';
COMMENT ON COLUMN sample_pairs.arm_answer IS 'What the arm answered, first 2000 characters; NULL if it lacks the sample.';
COMMENT ON COLUMN sample_pairs.baseline_score IS 'Score of the baseline; NULL if it lacks, failed or mis-scored the sample. [0..1]';
COMMENT ON COLUMN sample_pairs.arm_score IS 'Score of the arm; NULL if it lacks, failed or mis-scored the sample. [0..1]';
COMMENT ON COLUMN sample_pairs.baseline_counted IS 'Score as comparisons count it: worst case for the arm, so 1 if only the baseline lacks it; NULL if both do. [0..1]';
COMMENT ON COLUMN sample_pairs.arm_counted IS 'Score as comparisons count it: worst case for the arm, so 0 if only the arm lacks it; NULL if both do. [0..1]';
COMMENT ON COLUMN sample_pairs.baseline_error IS 'Why the baseline has no score.';
COMMENT ON COLUMN sample_pairs.arm_error IS 'Why the arm has no score.';
COMMENT ON COLUMN sample_pairs.baseline_digest IS 'Deployment digest that gave the baseline''s answer.';
COMMENT ON COLUMN sample_pairs.arm_digest IS 'Deployment digest that gave the arm''s answer.';

CREATE VIEW flips AS
SELECT
    sample_pairs.run_id,
    studies.study,
    sample_pairs.arm,
    arms.role,
    sample_pairs.suite,
    sample_pairs.category,
    sample_pairs.subgroup,
    sample_pairs.flip,
    sample_pairs.prompt,
    sample_pairs.target,
    sample_pairs.baseline_answer,
    sample_pairs.arm_answer,
    sample_pairs.baseline_score,
    sample_pairs.arm_score,
    sample_pairs.doc_hash,
    sample_pairs.prompt_hash
FROM sample_pairs
LEFT JOIN studies ON studies.run_id = sample_pairs.run_id
LEFT JOIN arms ON arms.run_id = sample_pairs.run_id AND arms.arm = sample_pairs.arm
WHERE sample_pairs.flip NOT IN ('same', 'missing');
COMMENT ON VIEW flips IS 'Samples whose score changed between baseline and arm, with both answers. Missing samples are in sample_pairs.';
COMMENT ON COLUMN flips.study IS 'Name of the study.';
COMMENT ON COLUMN flips.role IS 'baseline, candidate, identity or known_bad.';
COMMENT ON COLUMN flips.category IS 'accuracy, safety or canary.';
COMMENT ON COLUMN flips.flip IS 'Safety suites: safe_to_unsafe (met the suite at the baseline and fails it now) or unsafe_to_safe (the reverse). Any suite: gained or lost.';
COMMENT ON COLUMN flips.prompt_hash IS 'sha256 of the prompt as lm-eval built it, before any chat template.';
COMMENT ON COLUMN flips.baseline_answer IS 'What the baseline answered, first 2000 characters.';
COMMENT ON COLUMN flips.arm_answer IS 'What the arm answered, first 2000 characters.';
COMMENT ON COLUMN flips.baseline_score IS 'Score of the baseline. [0..1]';
COMMENT ON COLUMN flips.arm_score IS 'Score of the arm. [0..1]';

CREATE VIEW divergence_by_arm AS
WITH asked AS (
    SELECT
        run_id,
        arm,
        count(*) AS prompts,
        count(kl_nats) AS compared,
        count(same_answer) AS answered,
        sum(tokens) FILTER (WHERE kl_nats IS NOT NULL) AS tokens,
        avg(kl_nats) AS kl_nats,
        max(kl_nats_max) AS kl_nats_max,
        avg(covered) AS covered,
        sum(bounded) AS bounded,
        avg(top1_agreement) AS top1_agreement,
        count(*) FILTER (WHERE same_answer) AS same_answers,
        median(first_divergent_token) AS first_divergent_token_p50,
        min(error) AS error
    FROM divergences
    GROUP BY run_id, arm
)
SELECT
    asked.run_id,
    studies.study,
    asked.arm,
    arms.role,
    arms.lever,
    asked.prompts,
    asked.compared,
    asked.tokens,
    asked.kl_nats,
    interval_of.low AS kl_nats_low,
    interval_of.high AS kl_nats_high,
    asked.kl_nats_max,
    asked.covered,
    asked.bounded,
    asked.top1_agreement,
    asked.answered,
    asked.same_answers,
    asked.first_divergent_token_p50,
    asked.error
FROM asked
LEFT JOIN studies ON studies.run_id = asked.run_id
LEFT JOIN arms ON arms.run_id = asked.run_id AND arms.arm = asked.arm
LEFT JOIN comparisons AS interval_of
    ON interval_of.run_id = asked.run_id AND interval_of.arm = asked.arm AND interval_of.metric = 'kl_nats';
COMMENT ON VIEW divergence_by_arm IS
'How far each arm is from the baseline over all prompts of the divergence screen. The identity control is the floor: no smaller divergence can be told from noise.';
COMMENT ON COLUMN divergence_by_arm.study IS 'Name of the study.';
COMMENT ON COLUMN divergence_by_arm.role IS 'candidate, identity or known_bad.';
COMMENT ON COLUMN divergence_by_arm.prompts IS 'Prompts asked. [prompts]';
COMMENT ON COLUMN divergence_by_arm.compared IS 'Prompts whose next-token distributions could be compared. [prompts]';
COMMENT ON COLUMN divergence_by_arm.tokens IS 'Positions of these prompts'' answers. [tokens]';
COMMENT ON COLUMN divergence_by_arm.kl_nats IS 'Mean over prompts of the mean KL(baseline || arm) under teacher forcing, a lower bound. [nats/token]';
COMMENT ON COLUMN divergence_by_arm.kl_nats_low IS 'Lower bound of that mean, valid for every distribution. [nats/token]';
COMMENT ON COLUMN divergence_by_arm.kl_nats_high IS 'Upper bound of that mean, Student''s; NULL without any spread. [nats/token]';
COMMENT ON COLUMN divergence_by_arm.kl_nats_max IS 'Largest divergence at any position. [nats]';
COMMENT ON COLUMN divergence_by_arm.covered IS 'Mean probability the baseline gave to the tokens compared one by one. [0..1]';
COMMENT ON COLUMN divergence_by_arm.bounded IS 'Baseline tokens the arm did not name, whose probability there is bounded. [tokens]';
COMMENT ON COLUMN divergence_by_arm.top1_agreement IS 'Mean share of positions with the same likeliest token. [0..1]';
COMMENT ON COLUMN divergence_by_arm.answered IS 'Prompts both answered greedily by their own chat route. [prompts]';
COMMENT ON COLUMN divergence_by_arm.same_answers IS 'Of these, answers that are the same token for token. [prompts]';
COMMENT ON COLUMN divergence_by_arm.first_divergent_token_p50 IS 'Median index, from 0, of the first token that differs, over answers that differ; NULL if none does. [tokens]';
COMMENT ON COLUMN divergence_by_arm.error IS 'One reason why something could not be measured; NULL if everything was.';

CREATE VIEW capacity_by_arm AS
SELECT
    comparisons.run_id,
    studies.study,
    comparisons.arm,
    arms.role,
    comparisons.scope,
    comparisons.baseline_value AS baseline_per_s,
    comparisons.candidate_value AS capacity_per_s,
    comparisons.estimate AS ratio,
    comparisons.low AS ratio_low,
    comparisons.high AS ratio_high,
    comparisons.confidence,
    comparisons.n AS blocks,
    probed.probes,
    probed.invalid_probes,
    probed.seconds
FROM comparisons
JOIN arms ON arms.run_id = comparisons.run_id AND arms.arm = comparisons.arm
LEFT JOIN studies ON studies.run_id = comparisons.run_id
LEFT JOIN (
    SELECT
        run_id,
        arm,
        scope,
        count(*) AS probes,
        count(*) FILTER (WHERE NOT valid) AS invalid_probes,
        sum(duration_s) AS seconds
    FROM probes
    GROUP BY run_id, arm, scope
) AS probed
ON probed.run_id = comparisons.run_id AND probed.arm = comparisons.arm AND probed.scope = comparisons.scope
WHERE comparisons.category = 'capacity';
COMMENT ON VIEW capacity_by_arm IS
'The largest arrival rate at which the SLO holds, each arm beside the baseline: what a fleet is sized by.';
COMMENT ON COLUMN capacity_by_arm.study IS 'Name of the study.';
COMMENT ON COLUMN capacity_by_arm.role IS 'candidate, identity or known_bad.';
COMMENT ON COLUMN capacity_by_arm.scope IS 'Workload whose SLO is meant, such as chat@slo.';
COMMENT ON COLUMN capacity_by_arm.baseline_per_s IS 'Geometric mean over paired blocks, baseline; NULL if a block has none. [requests/s]';
COMMENT ON COLUMN capacity_by_arm.capacity_per_s IS 'The same of the arm; at least so much where it held the highest rate tried. [requests/s]';
COMMENT ON COLUMN capacity_by_arm.ratio IS 'Capacity of the arm over that of the baseline, paired by block. [ratio]';
COMMENT ON COLUMN capacity_by_arm.ratio_low IS 'Lower bound, one step of the search outwards. [ratio]';
COMMENT ON COLUMN capacity_by_arm.ratio_high IS 'Upper bound, one step of the search outwards. [ratio]';
COMMENT ON COLUMN capacity_by_arm.confidence IS 'Two-sided confidence of ratio_low..ratio_high. [0..1]';
COMMENT ON COLUMN capacity_by_arm.blocks IS 'Paired blocks. [blocks]';
COMMENT ON COLUMN capacity_by_arm.probes IS 'Probes made by the arm. [probes]';
COMMENT ON COLUMN capacity_by_arm.invalid_probes IS 'Of these, probes that decided nothing. [probes]';
COMMENT ON COLUMN capacity_by_arm.seconds IS 'Time under load of these probes. [s]';

CREATE VIEW cost_per_million_tokens AS
SELECT
    costs.run_id,
    studies.study,
    costs.arm,
    arms.role,
    arms.lever,
    costs.load_point,
    costs.price,
    costs.usd_per_hour,
    prices.source,
    prices.dated,
    costs.blocks,
    costs.confidence,
    costs.usd_per_million_output_tokens,
    costs.output_low,
    costs.output_high,
    theirs.usd_per_million_output_tokens AS baseline_usd_per_million_output_tokens,
    ratios.estimate AS output_ratio,
    ratios.low AS output_ratio_low,
    ratios.high AS output_ratio_high,
    costs.usd_per_million_slo_tokens,
    costs.slo_low,
    costs.slo_high,
    theirs.usd_per_million_slo_tokens AS baseline_usd_per_million_slo_tokens
FROM unit_costs AS costs
LEFT JOIN studies ON studies.run_id = costs.run_id
LEFT JOIN arms ON arms.run_id = costs.run_id AND arms.arm = costs.arm
LEFT JOIN prices ON prices.run_id = costs.run_id AND prices.price = costs.price
LEFT JOIN arms AS baselines ON baselines.run_id = costs.run_id AND baselines.role = 'baseline'
LEFT JOIN unit_costs AS theirs
    ON theirs.run_id = costs.run_id AND theirs.arm = baselines.arm AND theirs.load_point = costs.load_point
LEFT JOIN comparisons AS ratios
    ON ratios.run_id = costs.run_id
    AND ratios.arm = costs.arm
    AND ratios.scope = costs.load_point
    AND ratios.metric = 'usd_per_million_output_tokens';
COMMENT ON VIEW cost_per_million_tokens IS
'What a million tokens cost on every arm at every load point, beside the baseline''s cost, the paired ratio of the two and the source of the price.';
COMMENT ON COLUMN cost_per_million_tokens.study IS 'Name of the study.';
COMMENT ON COLUMN cost_per_million_tokens.role IS 'baseline, candidate, identity or known_bad.';
COMMENT ON COLUMN cost_per_million_tokens.load_point IS 'Workload and load.';
COMMENT ON COLUMN cost_per_million_tokens.price IS 'Name of the price used.';
COMMENT ON COLUMN cost_per_million_tokens.usd_per_hour IS 'US dollars per hour of the whole machine. [USD/h]';
COMMENT ON COLUMN cost_per_million_tokens.source IS 'Where the price was read.';
COMMENT ON COLUMN cost_per_million_tokens.blocks IS 'Valid blocks behind it. [blocks]';
COMMENT ON COLUMN cost_per_million_tokens.confidence IS 'Two-sided confidence of the intervals. [0..1]';
COMMENT ON COLUMN cost_per_million_tokens.baseline_usd_per_million_output_tokens IS 'The same for the baseline. [USD/1e6 tokens]';
COMMENT ON COLUMN cost_per_million_tokens.output_ratio IS 'Cost of the arm over cost of the baseline, paired by block; below 1 is cheaper, NULL for the baseline. [ratio]';
COMMENT ON COLUMN cost_per_million_tokens.output_ratio_low IS 'Lower bound of that. [ratio]';
COMMENT ON COLUMN cost_per_million_tokens.output_ratio_high IS 'Upper bound of that. [ratio]';
COMMENT ON COLUMN cost_per_million_tokens.baseline_usd_per_million_slo_tokens IS 'Price over tokens of requests that met the SLO, baseline. [USD/1e6 tokens]';

CREATE VIEW noise_floor AS
SELECT
    comparisons.run_id,
    studies.study,
    studies.started_at,
    comparisons.arm,
    comparisons.category,
    comparisons.metric,
    comparisons.scope,
    comparisons.kind,
    comparisons.baseline_value,
    comparisons.candidate_value,
    comparisons.estimate,
    comparisons.low,
    comparisons.high,
    (comparisons.high - comparisons.low) / 2 AS half_width,
    CASE comparisons.kind
        WHEN 'ratio' THEN comparisons.low > 1 OR comparisons.high < 1
        WHEN 'difference' THEN comparisons.low > 0 OR comparisons.high < 0
    END AS differs_from_itself,
    comparisons.confidence,
    comparisons.n,
    comparisons.n_missing,
    comparisons.gained,
    comparisons.lost,
    comparisons.method
FROM comparisons
JOIN arms ON arms.run_id = comparisons.run_id AND arms.arm = comparisons.arm AND arms.role = 'identity'
LEFT JOIN studies ON studies.run_id = comparisons.run_id;
COMMENT ON VIEW noise_floor IS
'The baseline against itself: comparisons of the identity control. No smaller effect than this can be told from noise on this machine. Rows of one run and load point come from the same trials, those of one suite from the same answers: count them as one event.';
COMMENT ON COLUMN noise_floor.study IS 'Name of the study.';
COMMENT ON COLUMN noise_floor.started_at IS 'When the run first started. [UTC]';
COMMENT ON COLUMN noise_floor.category IS 'speed, capacity, accuracy, safety, canary, cost or divergence.';
COMMENT ON COLUMN noise_floor.metric IS 'Metric compared.';
COMMENT ON COLUMN noise_floor.scope IS 'Load point or suite; prompts for a divergence.';
COMMENT ON COLUMN noise_floor.kind IS 'ratio (candidate / baseline), difference (candidate - baseline), share, nats or count.';
COMMENT ON COLUMN noise_floor.estimate IS 'Point estimate of the ratio, difference, share or divergence.';
COMMENT ON COLUMN noise_floor.low IS 'Lower bound.';
COMMENT ON COLUMN noise_floor.high IS 'Upper bound.';
COMMENT ON COLUMN noise_floor.half_width IS 'Half the width of the interval, in the unit of the estimate.';
COMMENT ON COLUMN noise_floor.differs_from_itself IS 'Whether the interval excludes no effect; NULL for shares and nats, which lie on one side of no effect. Expected in 1 - confidence of the runs for one metric and scope; more often means the machine is not quiet.';
COMMENT ON COLUMN noise_floor.confidence IS 'Two-sided confidence of low..high. [0..1]';
COMMENT ON COLUMN noise_floor.n IS 'Paired blocks, samples or prompts. [pairs]';

CREATE VIEW promotions_in_force AS
WITH newest AS (
    SELECT study, arg_max(run_id, started_at) AS run_id
    FROM studies
    WHERE status = 'complete'
    GROUP BY study
),
revoked AS (
    SELECT study, arm, deployment_digest, baseline_digest, max(confirmed_by) AS revoked_by
    FROM revocations
    ANTI JOIN reinstatements
        ON reinstatements.run_id = revocations.confirmed_by AND reinstatements.arm = revocations.arm
    GROUP BY ALL
),
evidence AS (
    SELECT
        promotions.run_id,
        promotions.study,
        promotions.arm,
        arm_then.lever,
        promotions.promoted_at,
        newest.run_id AS checked_run_id,
        study_then.status AS promoting_status,
        last_value(CASE WHEN study_then.status = 'complete' THEN promotions.run_id END IGNORE NULLS) OVER (
            PARTITION BY promotions.study, promotions.arm
            ORDER BY study_then.started_at, promotions.run_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS newest_promotion,
        promotions.deployment_digest,
        promotions.baseline_digest,
        promotions.policy_digest,
        promotions.valid_until,
        verdicts.verdict AS latest_verdict,
        promotions.policy_digest IS DISTINCT FROM study_now.policy_digest AS other_policy,
        study_then.accelerator IS DISTINCT FROM study_now.accelerator
        OR study_then.driver_version IS DISTINCT FROM study_now.driver_version
        OR study_then.cpu_model IS DISTINCT FROM study_now.cpu_model
        OR study_then.platform IS DISTINCT FROM study_now.platform AS other_platform,
        regexp_extract_all(
            study_then.packages_json, '"(flashinfer-python|tokenizers|torch|transformers|triton)":"[^"]*"'
        ) IS DISTINCT FROM regexp_extract_all(
            study_now.packages_json, '"(flashinfer-python|tokenizers|torch|transformers|triton)":"[^"]*"'
        ) AS other_packages,
        arm_now.arm IS NULL OR arm_now.status <> 'served' OR baseline_now.arm IS NULL
        OR baseline_now.status <> 'served' AS not_served,
        arm_then.engine IS DISTINCT FROM arm_now.engine
        OR arm_then.engine_version IS DISTINCT FROM arm_now.engine_version
        OR baseline_then.engine IS DISTINCT FROM baseline_now.engine
        OR baseline_then.engine_version IS DISTINCT FROM baseline_now.engine_version AS other_engine,
        arm_then.weights_digest IS DISTINCT FROM arm_now.weights_digest
        OR baseline_then.weights_digest IS DISTINCT FROM baseline_now.weights_digest AS other_weights,
        promotions.deployment_digest IS DISTINCT FROM arm_now.deployment_digest AS other_deployment,
        promotions.baseline_digest IS DISTINCT FROM baseline_now.deployment_digest AS other_baseline,
        revoked.revoked_by
    FROM promotions
    LEFT JOIN revoked
        ON revoked.study = promotions.study AND revoked.arm = promotions.arm
        AND revoked.deployment_digest = promotions.deployment_digest
        AND revoked.baseline_digest = promotions.baseline_digest
    LEFT JOIN studies AS study_then ON study_then.run_id = promotions.run_id
    LEFT JOIN arms AS arm_then ON arm_then.run_id = promotions.run_id AND arm_then.arm = promotions.arm
    LEFT JOIN arms AS baseline_then ON baseline_then.run_id = promotions.run_id AND baseline_then.role = 'baseline'
    LEFT JOIN newest ON newest.study = promotions.study
    LEFT JOIN studies AS study_now ON study_now.run_id = newest.run_id
    LEFT JOIN arms AS arm_now ON arm_now.run_id = newest.run_id AND arm_now.arm = promotions.arm
    LEFT JOIN arms AS baseline_now ON baseline_now.run_id = newest.run_id AND baseline_now.role = 'baseline'
    LEFT JOIN verdicts ON verdicts.run_id = newest.run_id AND verdicts.arm = promotions.arm
),
explained AS (
    SELECT
        *,
        CASE
            WHEN checked_run_id IS NULL THEN 'the study has no complete run'
            WHEN promoting_status IS DISTINCT FROM 'complete' THEN 'the run that promotes it is not complete'
            WHEN run_id <> newest_promotion THEN 'promoted again by run ' || newest_promotion
            ELSE nullif(concat_ws(
                '; ',
                CASE WHEN revoked_by IS NOT NULL THEN 'revoked: run ' || revoked_by || ' confirmed a regression' END,
                CASE WHEN valid_until <= make_timestamp(epoch_us(now())) THEN 'its sign-offs expired' END,
                CASE WHEN latest_verdict = 'reject' THEN 'the newest run rejected it' END,
                CASE WHEN other_policy THEN 'the policy changed' END,
                CASE WHEN other_platform THEN 'accelerator, driver, processor or platform changed' END,
                CASE WHEN other_packages THEN 'packages under the engine changed' END,
                CASE WHEN not_served THEN 'arm or baseline no longer serves' END,
                CASE WHEN other_engine AND NOT not_served THEN 'the engine changed' END,
                CASE WHEN other_weights AND NOT not_served THEN 'the weights changed' END,
                CASE WHEN other_deployment AND NOT not_served THEN 'the deployment of the arm changed' END,
                CASE WHEN other_baseline AND NOT not_served THEN 'the deployment of the baseline changed' END
            ), '')
        END AS expired_because
    FROM evidence
)
SELECT
    run_id,
    study,
    arm,
    lever,
    CASE
        WHEN expired_because IS NULL THEN 'in force'
        WHEN revoked_by IS NOT NULL AND run_id = newest_promotion THEN 'revoked'
        ELSE 'expired'
    END AS state,
    expired_because,
    checked_run_id,
    latest_verdict,
    promoted_at,
    deployment_digest,
    baseline_digest,
    policy_digest
FROM explained;
COMMENT ON VIEW promotions_in_force IS
'Every promotion, and whether it still holds: the newest of its arm, while engine, driver, platform, weights, deployment of arm and baseline, and policy are those of the newest complete run of the study, which did not reject the arm (the rules of steelyard/gates/expiry.py), its sign-offs have not expired where the policy asks for any, and no confirmed regression took it back (steelyard/incidents.py).';
COMMENT ON COLUMN promotions_in_force.run_id IS 'Run that promoted the arm.';
COMMENT ON COLUMN promotions_in_force.study IS 'Name of the study.';
COMMENT ON COLUMN promotions_in_force.lever IS 'Kind of optimization.';
COMMENT ON COLUMN promotions_in_force.state IS 'in force, revoked, or expired.';
COMMENT ON COLUMN promotions_in_force.expired_because IS 'Why it no longer holds; NULL while it is in force.';
COMMENT ON COLUMN promotions_in_force.checked_run_id IS 'Newest complete run of the study, with which the promotion was compared.';
COMMENT ON COLUMN promotions_in_force.latest_verdict IS 'What that run says of the arm; inconclusive ends no promotion, reject does.';
COMMENT ON COLUMN promotions_in_force.promoted_at IS 'When. [UTC]';
COMMENT ON COLUMN promotions_in_force.deployment_digest IS 'Deployment digest of the arm that was promoted.';
COMMENT ON COLUMN promotions_in_force.baseline_digest IS 'Deployment digest of the baseline.';
COMMENT ON COLUMN promotions_in_force.policy_digest IS 'sha256 of the policy it was promoted under.';

CREATE VIEW incident_log AS
SELECT
    incidents.opened_at,
    incidents.study,
    incidents.arm,
    incidents.what,
    incidents.metric,
    incidents.scope,
    coalesce(incident_ends.ending, 'open') AS state,
    incidents.before,
    incidents.after,
    incident_ends.value AS measured_again,
    incidents.since_run_id,
    incidents.run_id AS opened_by,
    incident_ends.run_id AS ended_by,
    revocations.incident IS NOT NULL AS revoked,
    reinstatements.reinstated_by,
    incidents.p_value,
    incidents.incident
FROM incidents
LEFT JOIN incident_ends USING (incident)
LEFT JOIN revocations
    ON revocations.run_id = incident_ends.run_id AND revocations.arm = incidents.arm
    AND incident_ends.ending = 'confirmed' AND incidents.what = 'gain'
LEFT JOIN reinstatements ON reinstatements.run_id = revocations.confirmed_by AND reinstatements.arm = revocations.arm;
COMMENT ON VIEW incident_log IS
'Every figure that changed its level for the worse: what it was, how the run after it measured it again, and what followed.';
COMMENT ON COLUMN incident_log.opened_at IS 'When. [UTC]';
COMMENT ON COLUMN incident_log.study IS 'Name of the study.';
COMMENT ON COLUMN incident_log.arm IS 'Arm whose figure it is; of the baseline and of noise the identity control.';
COMMENT ON COLUMN incident_log.what IS 'gain, baseline or noise.';
COMMENT ON COLUMN incident_log.metric IS 'Metric, as in comparisons.';
COMMENT ON COLUMN incident_log.scope IS 'Load point, suite or whatever the metric is about.';
COMMENT ON COLUMN incident_log.state IS 'open, confirmed, refuted, or superseded where arm or baseline are other deployments now.';
COMMENT ON COLUMN incident_log.before IS 'Level before.';
COMMENT ON COLUMN incident_log.after IS 'Level after.';
COMMENT ON COLUMN incident_log.measured_again IS 'The figure in the run that ended it; NULL while it is open.';
COMMENT ON COLUMN incident_log.since_run_id IS 'First run at the new level.';
COMMENT ON COLUMN incident_log.opened_by IS 'Run that showed it.';
COMMENT ON COLUMN incident_log.ended_by IS 'Run that confirmed or refuted it; NULL while it is open.';
COMMENT ON COLUMN incident_log.revoked IS 'Whether the promotions of the arm were taken back because of it.';
COMMENT ON COLUMN incident_log.reinstated_by IS 'Who lifted that since; NULL where nobody has.';
COMMENT ON COLUMN incident_log.p_value IS 'Two-sided, corrected for having chosen the split. [0..1]';
COMMENT ON COLUMN incident_log.incident IS 'Name of the incident.';

CREATE VIEW predicted_vs_measured AS
SELECT
    opportunities.run_id,
    studies.study,
    studies.started_at,
    opportunities.tried_by AS arm,
    opportunities.lever,
    opportunities.load_point,
    opportunities.predicted,
    opportunities.low AS predicted_low,
    opportunities.high AS predicted_high,
    comparisons.estimate AS measured,
    comparisons.low AS measured_low,
    comparisons.high AS measured_high,
    comparisons.estimate / opportunities.predicted - 1 AS error,
    comparisons.estimate BETWEEN opportunities.low AND opportunities.high AS inside,
    opportunities.rank,
    opportunities.mechanism
FROM opportunities
JOIN studies USING (run_id)
JOIN comparisons
    ON comparisons.run_id = opportunities.run_id
    AND comparisons.arm = opportunities.tried_by
    AND comparisons.scope = opportunities.load_point
    AND comparisons.metric = 'output_tokens_per_s'
WHERE opportunities.predicted IS NOT NULL AND comparisons.estimate > 0;
COMMENT ON VIEW predicted_vs_measured IS
'Every prediction that was measured in the same run: output tokens/s of the arm over the baseline, foretold and found.';
COMMENT ON COLUMN predicted_vs_measured.run_id IS 'Run of a study: one uninterrupted or resumed execution.';
COMMENT ON COLUMN predicted_vs_measured.study IS 'Name of the study.';
COMMENT ON COLUMN predicted_vs_measured.started_at IS 'When the run started. [UTC]';
COMMENT ON COLUMN predicted_vs_measured.arm IS 'Arm that was predicted and measured.';
COMMENT ON COLUMN predicted_vs_measured.lever IS 'Kind of optimization.';
COMMENT ON COLUMN predicted_vs_measured.load_point IS 'Workload and load.';
COMMENT ON COLUMN predicted_vs_measured.predicted IS 'Predicted from the baseline''s profile, before any trial. [ratio]';
COMMENT ON COLUMN predicted_vs_measured.predicted_low IS 'Lower end of the prediction. [ratio]';
COMMENT ON COLUMN predicted_vs_measured.predicted_high IS 'Upper end of the prediction. [ratio]';
COMMENT ON COLUMN predicted_vs_measured.measured IS 'Paired estimate over blocks. [ratio]';
COMMENT ON COLUMN predicted_vs_measured.measured_low IS 'Lower bound of that. [ratio]';
COMMENT ON COLUMN predicted_vs_measured.measured_high IS 'Upper bound of that. [ratio]';
COMMENT ON COLUMN predicted_vs_measured.error IS 'Measured over predicted, less one: above 0 the lever brought more. [share]';
COMMENT ON COLUMN predicted_vs_measured.inside IS 'Whether the measured estimate lies in the predicted interval.';
COMMENT ON COLUMN predicted_vs_measured.rank IS 'Place among the predictions of its run, from 1.';
COMMENT ON COLUMN predicted_vs_measured.mechanism IS 'Why it should pay, in a sentence.';

CREATE VIEW predictor_error AS
SELECT
    study,
    coalesce(lever, 'all') AS lever,
    count(*) AS predictions,
    avg(inside::INTEGER) AS inside_share,
    exp(median(abs(ln(measured / predicted)))) - 1 AS typical_error,
    exp(avg(ln(measured / predicted))) - 1 AS bias,
    min(started_at) AS since,
    max(started_at) AS until
FROM predicted_vs_measured
GROUP BY GROUPING SETS ((study, lever), (study));
COMMENT ON VIEW predictor_error IS
'How far predictions were from what was measured, over all nights of a study: by lever, and for all of them.';
COMMENT ON COLUMN predictor_error.study IS 'Name of the study.';
COMMENT ON COLUMN predictor_error.lever IS 'Kind of optimization; all for every lever together.';
COMMENT ON COLUMN predictor_error.predictions IS 'Predictions that were measured: arms by load points by nights.';
COMMENT ON COLUMN predictor_error.inside_share IS 'Share of them whose measured estimate lay in the predicted interval. [0..1]';
COMMENT ON COLUMN predictor_error.typical_error IS 'Median size of measured over predicted, by its logarithm. [share]';
COMMENT ON COLUMN predictor_error.bias IS 'Geometric mean of measured over predicted, less one: above 0 predictions are too low. [share]';
COMMENT ON COLUMN predictor_error.since IS 'First night. [UTC]';
COMMENT ON COLUMN predictor_error.until IS 'Last night. [UTC]';

CREATE VIEW time_by_work AS
WITH steps AS (
    SELECT
        run_id,
        arm,
        load_point,
        CASE
            WHEN context_requests > 0 THEN 'prefill'
            WHEN generation_requests > 0 THEN 'decode'
            ELSE 'idle'
        END AS phase,
        *
    FROM profile_steps
),
summed AS (
    SELECT
        run_id,
        arm,
        load_point,
        phase,
        count(*) AS steps,
        sum(until_next_s - idle_s) AS traced_s,
        sum(gemm_s) AS gemm,
        sum(attention_s) AS attention,
        sum(normalisation_s) AS normalisation,
        sum(elementwise_s) AS elementwise,
        sum(sampling_s) AS sampling,
        sum(communication_s) AS communication,
        sum(host_s) AS host,
        sum(scheduling_s) AS scheduling
    FROM steps
    GROUP BY run_id, arm, load_point, phase
),
long AS (
    UNPIVOT summed
    ON gemm, attention, normalisation, elementwise, sampling, communication, host, scheduling
    INTO NAME category VALUE seconds
)
SELECT
    run_id,
    arm,
    load_point,
    phase,
    category,
    steps,
    seconds,
    seconds / nullif(traced_s, 0) AS share
FROM long;
COMMENT ON VIEW time_by_work IS
'Where the time of traced steps went: seconds and share of each kind of work, by load point and phase; tracing included.';
COMMENT ON COLUMN time_by_work.run_id IS 'Run of a study: one uninterrupted or resumed execution.';
COMMENT ON COLUMN time_by_work.arm IS 'Name of the arm in its study.';
COMMENT ON COLUMN time_by_work.load_point IS 'Workload and load.';
COMMENT ON COLUMN time_by_work.phase IS 'prefill (steps that read a prompt, also beside decodes), decode, or idle.';
COMMENT ON COLUMN time_by_work.category IS 'gemm, attention, normalisation, elementwise, sampling, communication, host or scheduling.';
COMMENT ON COLUMN time_by_work.steps IS 'Traced steps of the phase. [steps]';
COMMENT ON COLUMN time_by_work.seconds IS 'Time of this kind of work in them. [s]';
COMMENT ON COLUMN time_by_work.share IS 'Share of the time of these steps, idle time left out. [0..1]';

CREATE VIEW pareto_front AS
SELECT
    searches.source AS study,
    stacks.run_id,
    stacks.arm,
    stacks.pulled,
    stacks.numbers_json,
    stacks.tokens_ratio,
    stacks.latency_ratio,
    stacks.usd_per_million,
    stacks.answer_risk,
    coalesce(stacks.arm = searches.winner, false) AS won
FROM searches
JOIN stacks USING (run_id)
WHERE stacks.on_front
    AND searches.searched_at = (SELECT max(newer.searched_at) FROM searches AS newer WHERE newer.source = searches.source)
QUALIFY row_number() OVER (PARTITION BY stacks.run_id, stacks.arm ORDER BY stacks.round DESC) = 1;
COMMENT ON VIEW pareto_front IS
'Of the newest search of each study: the stacks that no other beats in throughput, latency, cost and risk at once.';
COMMENT ON COLUMN pareto_front.study IS 'Name of the study.';
COMMENT ON COLUMN pareto_front.run_id IS 'Run of a study: one uninterrupted or resumed execution.';
COMMENT ON COLUMN pareto_front.arm IS 'Name of the arm in its study.';
COMMENT ON COLUMN pareto_front.pulled IS 'Levers it pulls, in the order they were taken.';
COMMENT ON COLUMN pareto_front.numbers_json IS 'Numeric arguments the search set over them, as canonical JSON.';
COMMENT ON COLUMN pareto_front.tokens_ratio IS 'Output tokens/s over the baseline''s. [ratio]';
COMMENT ON COLUMN pareto_front.latency_ratio IS 'Median end-to-end latency over the baseline''s. [ratio]';
COMMENT ON COLUMN pareto_front.usd_per_million IS 'Geometric mean over the load points, output tokens. [USD/1e6 tokens]';
COMMENT ON COLUMN pareto_front.answer_risk IS 'The gravest risk of its levers: none, rounding, approximation, unknown, damage.';
COMMENT ON COLUMN pareto_front.won IS 'Whether the search found it best.';

CREATE VIEW overhead AS
SELECT
    studies.study,
    wall_times.run_id,
    studies.status,
    count(DISTINCT wall_times.began_at) AS sittings,
    sum(wall_times.wall_s) AS wall_s,
    coalesce(sum(wall_times.wall_s) FILTER (WHERE wall_times.engines = 'answering'), 0) AS answering_s,
    coalesce(sum(wall_times.wall_s) FILTER (WHERE wall_times.engines = 'starting'), 0) AS starting_s,
    coalesce(sum(wall_times.wall_s) FILTER (WHERE wall_times.engines = 'idle'), 0) AS idle_s,
    coalesce(sum(wall_times.wall_s) FILTER (WHERE wall_times.engines = 'idle'), 0) / nullif(sum(wall_times.wall_s), 0)
        AS idle_share
FROM wall_times
JOIN studies USING (run_id)
GROUP BY studies.study, wall_times.run_id, studies.status;
COMMENT ON VIEW overhead IS
'Where the wall time of each run went: engines answer, engines start, or only Steelyard works.';
COMMENT ON COLUMN overhead.study IS 'Name of the study.';
COMMENT ON COLUMN overhead.run_id IS 'Run of a study: one uninterrupted or resumed execution.';
COMMENT ON COLUMN overhead.status IS 'running, complete, void (verdicts not to be believed), failed, imported or searched.';
COMMENT ON COLUMN overhead.sittings IS 'Processes it took: more than one if it was resumed. [processes]';
COMMENT ON COLUMN overhead.wall_s IS 'All of it. [s]';
COMMENT ON COLUMN overhead.answering_s IS 'While requests were under way. [s]';
COMMENT ON COLUMN overhead.starting_s IS 'While engines started or ended, and nobody was asked; also what Steelyard did meanwhile. [s]';
COMMENT ON COLUMN overhead.idle_s IS 'While no engine worked for the run: the overhead of Steelyard itself. [s]';
COMMENT ON COLUMN overhead.idle_share IS 'Share of that in all of it. [0..1]';

CREATE VIEW nights AS
WITH judged AS (
    SELECT
        run_id,
        count(*) FILTER (WHERE verdict = 'promote') AS promoted,
        count(*) FILTER (WHERE verdict = 'reject') AS rejected,
        count(*) FILTER (WHERE verdict = 'inconclusive') AS inconclusive
    FROM verdicts
    WHERE role = 'candidate'
    GROUP BY run_id
),
tried AS (
    SELECT run_id, count(*) AS trials, sum(requests) AS requests, sum(output_tokens) AS output_tokens
    FROM trials
    GROUP BY run_id
)
SELECT
    CAST(studies.started_at AS DATE) AS night,
    studies.study,
    count(*) AS runs,
    count(*) FILTER (WHERE studies.status = 'complete') AS complete,
    count(*) FILTER (WHERE studies.status = 'void') AS void,
    count(*) FILTER (WHERE studies.status = 'failed') AS failed,
    CAST(coalesce(sum(judged.promoted), 0) AS BIGINT) AS promoted,
    CAST(coalesce(sum(judged.rejected), 0) AS BIGINT) AS rejected,
    CAST(coalesce(sum(judged.inconclusive), 0) AS BIGINT) AS inconclusive,
    CAST(coalesce(sum(tried.trials), 0) AS BIGINT) AS trials,
    CAST(coalesce(sum(tried.requests), 0) AS BIGINT) AS requests,
    CAST(sum(tried.output_tokens) AS BIGINT) AS output_tokens,
    sum(epoch(studies.finished_at) - epoch(studies.started_at)) AS wall_s
FROM studies
LEFT JOIN judged USING (run_id)
LEFT JOIN tried USING (run_id)
WHERE studies.status <> 'imported'
GROUP BY CAST(studies.started_at AS DATE), studies.study;
COMMENT ON VIEW nights IS 'What each night did, by study: runs and how they ended, verdicts, trials, requests, time. The dimension by which the Parquet is partitioned.';
COMMENT ON COLUMN nights.night IS 'Day on which its runs began, in UTC.';
COMMENT ON COLUMN nights.study IS 'Name of the study.';
COMMENT ON COLUMN nights.runs IS 'Runs begun. [runs]';
COMMENT ON COLUMN nights.complete IS 'Of these, complete. [runs]';
COMMENT ON COLUMN nights.void IS 'Of these, void: their own controls or contracts failed. [runs]';
COMMENT ON COLUMN nights.failed IS 'Of these, given up. [runs]';
COMMENT ON COLUMN nights.promoted IS 'Verdicts of promote; controls are not counted. [arms]';
COMMENT ON COLUMN nights.rejected IS 'Verdicts of reject. [arms]';
COMMENT ON COLUMN nights.inconclusive IS 'Verdicts of inconclusive. [arms]';
COMMENT ON COLUMN nights.trials IS 'Trials stored. [trials]';
COMMENT ON COLUMN nights.requests IS 'Requests these trials sent; counted from trials, so thinning does not change it. [requests]';
COMMENT ON COLUMN nights.output_tokens IS 'Output tokens of completed requests; NULL if unknown. [tokens]';
COMMENT ON COLUMN nights.wall_s IS 'From start to end of the runs that ended; NULL if none did. [s]';

CREATE VIEW best_verdicts AS
WITH proven AS (
    -- The gain a verdict claims: of its required gates on a gain, the one that proved most.
    SELECT
        run_id,
        arm,
        arg_max(metric, size) AS metric,
        arg_max(scope, size) AS scope,
        arg_max(estimate, size) AS gain,
        arg_max(CASE WHEN bound_kind = 'at_most' THEN high ELSE low END, size) AS proven_gain,
        max(size) AS size
    FROM (
        SELECT *, CASE WHEN bound_kind = 'at_most' THEN 1 / nullif(high, 0) ELSE low END AS size
        FROM gate_results
        WHERE benefit AND required
    )
    WHERE size IS NOT NULL
    GROUP BY run_id, arm
),
judged AS (
    SELECT
        arms.model,
        arms.lever,
        verdicts.*,
        studies.study,
        CAST(studies.started_at AS DATE) AS night,
        proven.metric,
        proven.scope,
        proven.gain,
        proven.proven_gain,
        promoted.arm IS NOT NULL AS promoted,
        count(*) OVER (PARTITION BY arms.model, arms.lever) AS judged,
        count(*) FILTER (WHERE verdicts.verdict = 'promote') OVER (PARTITION BY arms.model, arms.lever) AS promotes,
        row_number() OVER (
            PARTITION BY arms.model, arms.lever
            ORDER BY
                CASE verdicts.verdict WHEN 'promote' THEN 0 WHEN 'inconclusive' THEN 1 WHEN 'reject' THEN 2 ELSE 3 END,
                proven.size DESC NULLS LAST,
                verdicts.run_id DESC,
                verdicts.arm
        ) AS place
    FROM verdicts
    JOIN studies ON studies.run_id = verdicts.run_id AND studies.status = 'complete'
    JOIN arms ON arms.run_id = verdicts.run_id AND arms.arm = verdicts.arm
    LEFT JOIN proven ON proven.run_id = verdicts.run_id AND proven.arm = verdicts.arm
    LEFT JOIN promotions AS promoted ON promoted.run_id = verdicts.run_id AND promoted.arm = verdicts.arm
    WHERE verdicts.role = 'candidate'
)
SELECT
    model, lever, verdict, arm, metric, scope, gain, proven_gain, promoted, judged, promotes, study, night, run_id,
    deployment_digest, reasons
FROM judged
WHERE place = 1;
COMMENT ON VIEW best_verdicts IS 'The best verdict each lever ever got on each model: promote before inconclusive before reject, and of equal ones the gain that was proven largest. Complete runs only.';
COMMENT ON COLUMN best_verdicts.model IS 'Name of the model served; NULL in runs of before it was stored.';
COMMENT ON COLUMN best_verdicts.lever IS 'Kind of optimization.';
COMMENT ON COLUMN best_verdicts.metric IS 'Metric of the gate on a gain that proved most; NULL if none has evidence.';
COMMENT ON COLUMN best_verdicts.scope IS 'Load point or capacity of that gate.';
COMMENT ON COLUMN best_verdicts.gain IS 'Point estimate there, arm over baseline. [ratio]';
COMMENT ON COLUMN best_verdicts.proven_gain IS 'The bound of its interval that decides: the lower one where more is better. [ratio]';
COMMENT ON COLUMN best_verdicts.promoted IS 'Whether that run promoted the arm; whether it still is, promotions_in_force says.';
COMMENT ON COLUMN best_verdicts.judged IS 'Verdicts on this lever and model in all nights. [verdicts]';
COMMENT ON COLUMN best_verdicts.promotes IS 'Of these, promote. [verdicts]';
COMMENT ON COLUMN best_verdicts.study IS 'Name of the study.';
COMMENT ON COLUMN best_verdicts.night IS 'Day on which the run began, in UTC.';
COMMENT ON COLUMN best_verdicts.run_id IS 'Run that gave the verdict.';
COMMENT ON COLUMN best_verdicts.deployment_digest IS 'Deployment digest the verdict is about.';

CREATE VIEW metric_trend AS
SELECT
    studies.study,
    comparisons.arm,
    arms.role,
    comparisons.category,
    comparisons.metric,
    comparisons.scope,
    CAST(studies.started_at AS DATE) AS night,
    comparisons.run_id,
    comparisons.kind,
    comparisons.estimate,
    comparisons.low,
    comparisons.high,
    comparisons.baseline_value,
    comparisons.candidate_value,
    median(comparisons.estimate) OVER before AS usual,
    CASE comparisons.kind
        WHEN 'ratio' THEN comparisons.estimate / nullif(median(comparisons.estimate) OVER before, 0) - 1
        ELSE comparisons.estimate - median(comparisons.estimate) OVER before
    END AS change,
    comparisons.n,
    verdicts.verdict
FROM comparisons
JOIN studies ON studies.run_id = comparisons.run_id AND studies.status = 'complete'
JOIN arms ON arms.run_id = comparisons.run_id AND arms.arm = comparisons.arm
LEFT JOIN verdicts ON verdicts.run_id = comparisons.run_id AND verdicts.arm = comparisons.arm
WINDOW before AS (
    PARTITION BY studies.study, comparisons.arm, comparisons.metric, comparisons.scope
    ORDER BY studies.started_at, comparisons.run_id
    ROWS BETWEEN 7 PRECEDING AND 1 PRECEDING
);
COMMENT ON VIEW metric_trend IS 'Every comparison of every complete night, beside what was usual in the seven runs before: how a gain, a score or the noise of the machine moves.';
COMMENT ON COLUMN metric_trend.study IS 'Name of the study.';
COMMENT ON COLUMN metric_trend.role IS 'candidate, identity (then the trend is that of the noise floor) or known_bad.';
COMMENT ON COLUMN metric_trend.category IS 'speed, capacity, accuracy, safety, canary, cost or divergence.';
COMMENT ON COLUMN metric_trend.metric IS 'Metric compared.';
COMMENT ON COLUMN metric_trend.scope IS 'Load point or suite; prompts for a divergence.';
COMMENT ON COLUMN metric_trend.night IS 'Day on which the run began, in UTC.';
COMMENT ON COLUMN metric_trend.kind IS 'ratio (candidate / baseline), difference (candidate - baseline), share, nats or count.';
COMMENT ON COLUMN metric_trend.estimate IS 'Point estimate of that night.';
COMMENT ON COLUMN metric_trend.low IS 'Lower bound.';
COMMENT ON COLUMN metric_trend.high IS 'Upper bound.';
COMMENT ON COLUMN metric_trend.usual IS 'Median of the estimates of up to seven complete runs before; NULL in the first.';
COMMENT ON COLUMN metric_trend.change IS 'Estimate against that: of a ratio its share less one, of anything else the difference.';
COMMENT ON COLUMN metric_trend.n IS 'Paired blocks, samples or prompts. [pairs]';
COMMENT ON COLUMN metric_trend.verdict IS 'Verdict on the arm that night.';
