"""A study as frozen objects: what is asked, before anything is served.

`study_file.load_study` reads them from YAML; nothing else makes them except tests. Field descriptions are the
reference documentation and the JSON Schema, so they say meaning and unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from steelyard.study_base import Frozen, Name
from steelyard.study_capacity import CapacitySearch
from steelyard.study_divergence import Divergence
from steelyard.study_faults import Faults
from steelyard.study_judge import JUDGE_METRIC, Judge
from steelyard.study_profile import Profile
from steelyard.study_rules import Misfit, Misfits, study_misfits
from steelyard.study_weights import Weights

ArgValue = str | int | float | bool | dict[str, Any] | None
Lever = Literal[
    "attention", "cache", "batching", "quantization", "speculation", "compilation", "precision", "parallelism",
    "engine", "combined",
]  # fmt: skip
EngineKind = Literal["vllm", "transformers", "attach", "fake"]
Role = Literal["baseline", "candidate", "identity", "known_bad"]


class Model(Frozen):
    """The model under study."""

    name: str = Field(description="Name under which engines serve the model, and which clients ask for.")
    weights: str = Field(description="Folder with safetensors (relative to the study file) or a hub id.")
    tokenizer: str | None = Field(None, description="Folder or hub id of the tokenizer; default: the weights'.")
    chat_template: str | None = Field(None, description="Jinja file (relative to the study); default: the tokenizer's.")
    revision: str | None = Field(None, description="Hub revision; ignored for local folders.")


class Hardware(Frozen):
    """The machine the study is about."""

    name: str = Field(description="Name of the machine type, as people say it.")
    device: Literal["cpu", "cuda"] = Field(description="Device the engines run on.")
    price: str = Field(description="Name of the price in the price book that one engine on this machine costs.")
    start_timeout_s: float = Field(
        300.0, gt=0, description="Longest an engine may take from launch to its first token, seconds."
    )


class Slo(Frozen):
    """What a request must meet to count as good. A limit left out is not asked for. Seconds."""

    ttft_s: float | None = Field(None, gt=0, description="Time to first token at most, seconds.")
    itl_s: float | None = Field(None, gt=0, description="Mean inter-token latency of the request at most, seconds.")
    e2e_s: float | None = Field(None, gt=0, description="End-to-end latency at most, seconds.")

    @model_validator(mode="after")
    def _some_limit(self) -> Slo:
        if self.ttft_s is None and self.itl_s is None and self.e2e_s is None:
            raise Misfits(Misfit("an SLO needs at least one limit.", "Give one of ttft_s, itl_s, e2e_s, in seconds."))
        return self


class Load(Frozen):
    """A load point: closed loop with so many requests in flight, or open loop with Poisson arrivals."""

    concurrency: int | None = Field(None, ge=1, description="Closed loop: requests in flight.")
    rate: float | None = Field(None, gt=0, description="Open loop: mean Poisson arrivals per second.")

    @model_validator(mode="after")
    def _one_of(self) -> Load:
        if (self.concurrency is None) == (self.rate is None):
            raise Misfits(
                Misfit("a load point is either closed or open loop.", "Give exactly one of concurrency and rate.")
            )
        return self

    @property
    def name(self) -> str:
        """`c8` for a concurrency of 8, `r2.5` for 2.5 arrivals per second."""
        return f"c{self.concurrency}" if self.concurrency is not None else f"r{self.rate:g}"


class Workload(Frozen):
    """Prompts and output lengths, generated from the study's seed under the model's own tokenizer."""

    name: Name = Field(description="Name of the workload, as claims, tables and reports say it.")
    kind: Literal["chat", "shared_prefix", "long_prompt", "repetitive"] = Field(
        description="chat: unique short prompts; shared_prefix: prompts share long prefixes; long_prompt: unique "
        "long prompts; repetitive: prompts that repeat themselves, as code and extraction do."
    )
    requests: int = Field(ge=2, description="Requests of one trial.")
    prompt_tokens: int = Field(ge=8, description="Exact prompt length, tokens of the model's tokenizer.")
    output_tokens: int = Field(ge=2, description="Output length asked for, tokens (end-of-sequence is ignored).")
    output_spread: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Output lengths vary evenly by this share around output_tokens, seeded and the same in every arm; "
        "0: all equal, which lets a closed loop run in lockstep, in a mode that the first milliseconds decide.",
    )
    shared_tokens: int | None = Field(None, ge=1, description="shared_prefix: tokens of the prompt that are shared.")
    prefixes: int = Field(1, ge=1, description="shared_prefix: how many different prefixes there are.")
    load: tuple[Load, ...] = Field(min_length=1, description="Load points of this workload.")
    slo: Slo | None = Field(None, description="SLO of this workload; default: the study's.")

    @model_validator(mode="after")
    def _prefix(self) -> Workload:
        if (self.kind == "shared_prefix") != (self.shared_tokens is not None):
            at = ("kind",) if self.shared_tokens is None else ("shared_tokens",)
            raise Misfits(
                Misfit("shared_tokens belongs to kind shared_prefix.", "Give it there, and only there.", at),
            )
        if self.shared_tokens is not None and self.shared_tokens > self.prompt_tokens - 4:
            most = self.prompt_tokens - 4
            raise Misfits(
                Misfit(
                    "the shared tokens must leave at least 4 of prompt_tokens for the part that is not shared.",
                    f"Write at most {most}.",
                    ("shared_tokens",),
                )
            )
        names = [load.name for load in self.load]
        twice = [index for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise Misfits(*(Misfit(f"load point {names[i]} stands twice.", "Remove one.", ("load", i)) for i in twice))
        return self


class Baseline(Frozen):
    """The deployment as it runs today."""

    engine: EngineKind = Field("vllm", description="Kind of engine that serves it.")
    args: dict[str, ArgValue] = Field(
        default_factory=dict,
        description="Engine arguments, long names with underscores (max_num_seqs: 4). true/false switch a flag.",
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of the engine process.")
    url: str | None = Field(None, description="attach: base URL of an engine somebody else runs.")
    note: str | None = Field(None, description="Why the baseline is as it is.")


class Claim(Frozen):
    """Where a candidate says it pays. It is declared before measuring, so that no load point is picked after."""

    workload: Name = Field(description="Name of a workload of the study.")
    load: str = Field(description="Name of the load point, such as c8 or r4.")
    gain: float | None = Field(
        None, gt=1, description="How many times the baseline is expected there; `steelyard plan` plans for it."
    )

    @property
    def load_point(self) -> str:
        """Name of the load point as `LoadPoint.name` has it."""
        return f"{self.workload}@{self.load}"


class Variation(Frozen):
    """What an arm changes against the baseline; everything left out is as in the baseline."""

    name: Name = Field(description="Name of the arm, different from every other arm's.")
    engine: EngineKind | None = Field(None, description="Another kind of engine than the baseline's.")
    args: dict[str, ArgValue] = Field(
        default_factory=dict, description="Engine arguments added to the baseline's; null removes one."
    )
    env: dict[str, str | None] = Field(
        default_factory=dict, description="Environment variables added to the baseline's; null removes one."
    )
    weights: Weights | None = Field(
        None, description="Weights derived from the model's: one transform, or a list of them applied in order."
    )
    chat_template: str | None = Field(None, description="Another chat template: a Jinja file relative to the study.")
    url: str | None = Field(None, description="attach: base URL of an engine somebody else runs.")
    note: str | None = Field(None, description="What it is and why it is tried.")


class Candidate(Variation):
    """An optimization that asks to be promoted."""

    lever: Lever = Field(description="Kind of optimization.")
    claim: Claim = Field(description="The load point where it must show the policy's gain.")


class Control(Variation):
    """An arm of known truth: the baseline again, or a deployment known to be bad."""

    kind: Literal["identity", "known_bad"] = Field(
        description="identity: the baseline again, measures the noise; known_bad: must never be promoted."
    )
    faults: Faults | None = Field(
        None, description="known_bad: damage between the client and a healthy engine. Not for engine attach."
    )

    @model_validator(mode="after")
    def _identity_changes_nothing(self) -> Control:
        changes = any((self.engine, self.args, self.env, self.weights, self.chat_template, self.url, self.faults))
        if self.kind == "identity" and changes:
            raise Misfits(
                Misfit("the identity control is the baseline again: it may change nothing.", "Remove its changes.")
            )
        if self.kind == "known_bad" and not changes:
            remedy = "Damage it: args, weights, chat_template, env or faults."
            raise Misfits(Misfit("a known-bad control must change something.", remedy))
        if self.faults is not None and self.faults.serve_weights is not None and self.weights is not None:
            raise Misfits(
                Misfit(
                    "serve_weights replaces all weights, so derived ones would never be served.",
                    "Give one of weights and faults.serve_weights.",
                    ("faults", "serve_weights"),
                )
            )
        return self


class Suite(Frozen):
    """An lm-eval task (or group) run against every arm."""

    name: Name = Field(description="Name of the suite in tables and reports.")
    task: str = Field(description="lm-eval task name.")
    category: Literal["accuracy", "safety", "canary"] = Field(
        description="Which gates of the policy judge it. canary: few documents that must hold one by one; they are "
        "asked first, and no mean can make up for a broken one."
    )
    metric: str = Field("score", description="Per-sample metric, 0 to 1, higher is better.")
    limit: int | None = Field(None, ge=1, description="At most so many documents, drawn with the study's seed.")
    sealed: int = Field(
        0,
        ge=0,
        description="So many documents are kept from every run and asked only when a campaign's winner is confirmed; "
        "the same ones whatever the study and its seed.",
    )
    part: Literal["open", "sealed"] = Field(
        "open", description="Which of both is asked. Written by `steelyard confirm`; nobody else needs it."
    )
    path: str | None = Field(None, description="Folder with task YAML (relative to the study); default: Steelyard's.")
    cluster: tuple[str, ...] | None = Field(
        None,
        description="Fields of a document that name what it is about. Documents that share them stand or fall "
        "together, so they count as one. Default: `cluster` of the task's metadata, else each document is its own.",
    )
    judge: Judge | None = Field(
        None, description="Guard model that labels a safety suite's answers beside its score; left out: none."
    )

    @model_validator(mode="after")
    def _judged(self) -> Suite:
        if self.judge is not None and self.category != "safety":
            raise Misfits(Misfit("a judge labels answers of safety suites only.", "Remove it.", ("judge",)))
        if self.part == "sealed" and not self.sealed:
            raise Misfits(
                Misfit("there are no sealed documents to ask.", "Say how many, or ask the open ones.", ("part",))
            )
        if self.judge is None and self.metric == JUDGE_METRIC:
            raise Misfits(Misfit(f"{JUDGE_METRIC} needs a judge.", "Give the suite one.", ("metric",)))
        return self


class Study(Frozen):
    """One study: a baseline, its candidates and controls, what they are measured on and who decides."""

    study: Name = Field(description="Name of the study.")
    description: str = Field(description="One sentence for people.")
    owner: str = Field(
        "team:inference",
        pattern=r"^(team:[A-Za-z0-9][A-Za-z0-9_-]{0,62}|[^\s@]+@[^\s@]+)$",
        description="Owner as Dagster wants it: an e-mail or team:NAME. Who is of the team may not approve its runs.",
    )
    seed: int = Field(0, description="Seed of prompts, arrivals, block order and document draws.")
    blocks: int = Field(3, ge=2, description="Blocks: one trial of every arm at every load point each.")
    batch: int = Field(100, ge=1, description="Documents of a suite between two looks, where the policy stops early.")
    reuse_baseline: bool = Field(
        True,
        description="The baseline's answers of an earlier run are taken where deployment digest, suite, seed, packages "
        "and machine are the same, after asking some documents again.",
    )
    spot_check: int = Field(
        100,
        ge=1,
        description="Documents of each suite, drawn anew each run, that are asked again before answers are reused.",
    )
    warmup_requests: int = Field(2, ge=0, description="Requests before each trial that are not measured.")
    residency: Literal["auto", "resident", "exclusive"] = Field(
        "auto",
        description="resident: arms stay up together as memory allows; exclusive: one engine at a time.",
    )
    confirms: str | None = Field(
        None, description="Run whose winner this study confirms. Written by `steelyard confirm`; nobody else needs it."
    )
    model: Model = Field(description="The model under study.")
    hardware: Hardware = Field(description="The machine the study is about.")
    slo: Slo = Field(description="What a request must meet to count as good, unless its workload says otherwise.")
    workloads: tuple[Workload, ...] = Field(min_length=1, description="What is asked of every arm.")
    baseline: Baseline = Field(description="The deployment as it runs today.")
    candidates: tuple[Candidate, ...] = Field(min_length=1, description="Optimizations that ask to be promoted.")
    controls: tuple[Control, ...] = Field(min_length=1, description="Arms of known truth; one identity at least.")
    suites: tuple[Suite, ...] = Field(
        min_length=1, description="Quality suites; one accuracy and one safety suite at least."
    )
    capacity: tuple[CapacitySearch, ...] = Field(
        (), description="Workloads whose capacity at the SLO is searched for every arm; left out: none."
    )
    divergence: Divergence | None = Field(
        None, description="Screen every arm by its token divergence from the baseline; left out: not measured."
    )
    profile: Profile | None = Field(
        None,
        description="Profile the baseline and predict what each lever should bring before any is timed; left out: not.",
    )
    policy: str = Field("policy.yaml", description="Policy file, relative to the study.")
    prices: str = Field("prices.yaml", description="Price book, relative to the study.")

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        misfits = study_misfits(
            self.baseline, self.workloads, self.candidates, self.controls, self.suites, self.capacity
        )
        if misfits:
            raise Misfits(*misfits)
        return self

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm, the baseline first, controls last."""
        return (
            Arm.of_baseline(self.baseline),
            *(Arm.varied(self.baseline, each, "candidate", each.lever, each.claim) for each in self.candidates),
            *(Arm.varied(self.baseline, each, each.kind, None, None) for each in self.controls),
        )

    def arm(self, name: str) -> Arm:
        """The arm of that name; KeyError if there is none."""
        return {arm.name: arm for arm in self.arms}[name]

    @property
    def load_points(self) -> tuple[LoadPoint, ...]:
        """Every load point of every workload, in the order written."""
        return tuple(LoadPoint(workload=workload, load=load) for workload in self.workloads for load in workload.load)

    def slo_of(self, workload: Workload) -> Slo:
        """The SLO that holds for a workload."""
        return workload.slo or self.slo


class LoadPoint(Frozen):
    """A workload under one load."""

    workload: Workload
    load: Load

    @property
    def name(self) -> str:
        """`chat@c8`: the name in tables, reports and policies."""
        return f"{self.workload.name}@{self.load.name}"


class Arm(Frozen):
    """One configuration as asked for, the baseline's arguments already merged in."""

    name: str
    role: Role
    lever: Lever | None
    claim: Claim | None
    engine: EngineKind
    args: dict[str, ArgValue]
    env: dict[str, str]
    weights: Weights | None
    chat_template: str | None
    url: str | None
    note: str | None
    faults: Faults | None

    @classmethod
    def of_baseline(cls, baseline: Baseline) -> Arm:
        """The arm named `baseline`."""
        return cls(
            name="baseline", role="baseline", lever=None, claim=None, engine=baseline.engine,
            args={key: value for key, value in baseline.args.items() if value is not None}, env=baseline.env,
            weights=None, chat_template=None, url=baseline.url, note=baseline.note, faults=None,
        )  # fmt: skip

    @classmethod
    def varied(cls, baseline: Baseline, change: Variation, role: Role, lever: Lever | None, claim: Claim | None) -> Arm:
        """The baseline with `change` applied. Another kind of engine inherits no arguments: they mean nothing there."""
        same = change.engine is None or change.engine == baseline.engine
        args: Mapping[str, ArgValue] = {**(baseline.args if same else {}), **change.args}
        env = {**baseline.env, **change.env}
        return cls(
            name=change.name, role=role, lever=lever, claim=claim, engine=change.engine or baseline.engine,
            args={key: value for key, value in args.items() if value is not None},
            env={key: value for key, value in env.items() if value is not None},
            weights=change.weights, chat_template=change.chat_template,
            url=change.url or (baseline.url if same else None), note=change.note,
            faults=change.faults if isinstance(change, Control) else None,
        )  # fmt: skip

    @property
    def gated(self) -> bool:
        """Whether gates judge this arm. Everything but the baseline is judged, controls too."""
        return self.role != "baseline"


Study.model_rebuild()
