"""How much must be measured so that a gate can say yes: blocks for a gain, documents for a margin.

Both are about the last look alone (`stats.sequential`), where half of the error is kept. Earlier looks can only add to
the power, so what is planned suffices. `make bench-error_rates` verifies it by simulation.
"""

from __future__ import annotations

import math

from steelyard.stats.paired import check_confidence, t_quantile
from steelyard.stats.proportions import score_statistics
from steelyard.stats.sequential import LAST_SHARE, Looks

MAX_BLOCKS = 200
MAX_DOCUMENTS = 200_000


def power_of_blocks(gain: float, bound: float, sd: float, confidence: float, looks: Looks | None, n: int) -> float:
    """Chance that `n` blocks prove a ratio of at least `bound` where it is `gain`.

    `sd` is the standard deviation of a block's log-ratio. Student's interval on the logarithms; with `looks` at the
    share of the look that `n` is, without for a single look. Lognormal block noise (noncentral t).
    """
    from scipy.special import nctdtr

    check_confidence(confidence)
    share = 1.0 if looks is None else looks.share(n)
    if n < 2 or share == 0:
        return 0.0
    shift = math.log(gain / bound)
    if sd == 0:
        return 1.0 if shift > 0 else 0.0
    critical = t_quantile(1 - (1 - confidence) * share, n - 1)
    return 1.0 - float(nctdtr(n - 1, shift / sd * math.sqrt(n), critical))


def blocks_needed(
    gain: float, bound: float, sd: float, confidence: float, power: float, *, first: int = 3, early: bool = True
) -> int | None:
    """Fewest blocks with that power, `first` at least; None if `MAX_BLOCKS` do not suffice.

    `early` says that every block from `first` on is looked at, so that the last look has half of the error.
    """
    if gain <= bound:
        return None
    for n in range(max(2, first), MAX_BLOCKS + 1):
        looks = Looks(max(2, first), n) if early else None
        if power_of_blocks(gain, bound, sd, confidence, looks, n) >= power:
            return n
    return None


def power_of_documents(discordance: float, margin: float, confidence: float, n: int, *, early: bool = True) -> float:
    """Chance that `n` documents prove a loss below `margin` where gains and losses are equally frequent.

    `discordance` is the share of documents on which the two arms differ. Exact over all tables of right and wrong
    answers, by Tango's interval: at half of the error where documents are looked at `early`, else at all of it.
    """
    import numpy as np
    from scipy.special import gammaln, ndtri, xlogy

    check_confidence(confidence)
    share = LAST_SHARE if early else 1.0
    critical = float(ndtri(1 - (1 - confidence) * share / 2))
    mean = n * discordance / 2
    # Beyond eight standard deviations lies less than any power that is asked for.
    near = 8 * math.sqrt(mean) + 8
    counts = np.arange(max(0, math.floor(mean - near)), min(n, math.ceil(mean + near)) + 1)
    gained, lost = np.meshgrid(counts, counts, indexing="ij")
    same = n - gained - lost
    possible = same >= 0
    same = np.where(possible, same, 0)
    log_chance = (
        gammaln(n + 1) - gammaln(gained + 1) - gammaln(lost + 1) - gammaln(same + 1)
        + xlogy(gained + lost, discordance / 2) + xlogy(same, 1 - discordance)
    )  # fmt: skip
    passed = score_statistics(gained, lost, n, -margin) >= critical
    return float(np.exp(log_chance[possible & passed]).sum())


def power_of_share(share: float, bound: float, confidence: float, n: int, *, early: bool = True) -> float:
    """Chance that `n` documents prove a share of at most `bound` where it is `share`, by the exact one-sided bound
    (Clopper and Pearson 1934); errors as in `power_of_documents`.
    """
    from scipy.special import bdtr, bdtrik

    check_confidence(confidence)
    error = (1 - confidence) / 2 * (LAST_SHARE if early else 1.0)
    # The upper bound of k in n stays below `bound` exactly where k or fewer are that improbable under it.
    most = math.floor(float(bdtrik(error, n, bound))) if (1 - bound) ** n < error else -1
    while most >= 0 and float(bdtr(most, n, bound)) > error:
        most -= 1
    return float(bdtr(most, n, share)) if most >= 0 else 0.0


def documents_for_share(
    share: float, bound: float, confidence: float, power: float, *, early: bool = True
) -> int | None:
    """Fewest documents with that power, to about 2 %; None if the share is not below the bound, or `MAX_DOCUMENTS` do
    not suffice.
    """
    n = max(8, math.ceil(1 / bound))
    while share < bound and n <= MAX_DOCUMENTS:
        if all(
            power_of_share(share, bound, confidence, size, early=early) >= power for size in (n, math.ceil(n * 1.02))
        ):
            return n
        n = math.ceil(n * 1.02)
    return None


def documents_needed(
    discordance: float, margin: float, confidence: float, power: float, *, early: bool = True
) -> int | None:
    """Fewest documents with that power, to about 2 %; None if `MAX_DOCUMENTS` do not suffice."""
    from scipy.special import ndtri

    error = (1 - confidence) / 2 * (LAST_SHARE if early else 1.0)
    about = (float(ndtri(1 - error)) + float(ndtri(power))) ** 2 * discordance / margin**2
    # Begun a little below the normal approximation, which is too small where differences are rare.
    n = max(8, math.ceil(1 / margin), math.floor(0.8 * about))
    while n <= MAX_DOCUMENTS:
        # A saw-tooth: one document more may tip a whole step of the count, so the next larger number must do, too.
        if all(
            power_of_documents(discordance, margin, confidence, size, early=early) >= power
            for size in (n, math.ceil(n * 1.02))
        ):
            return n
        n = math.ceil(n * 1.02)
    return None
