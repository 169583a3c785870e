"""The slow, obvious twins of rollout/sequential.py: martingales by summing up, intervals by trying every share of a grid."""

import decimal
import math


def mixture(hits, misses):
    """The logarithm of the mean likelihood under Jeffreys' prior, one draw after the other: by the rule of Krichevsky and Trofimov."""
    total = 0.0
    for seen in range(hits):
        total += math.log((seen + 0.5) / (seen + 1))
    for seen in range(misses):
        total += math.log((seen + 0.5) / (hits + seen + 1))
    return total


def likelihood(hits, misses, p):
    if (hits and p <= 0) or (misses and p >= 1):
        return -math.inf
    return (hits and hits * math.log(p)) + (misses and misses * math.log1p(-p))


def martingale(hits, misses, p):
    """Its logarithm: 0 at the start, and reaches log(1 / alpha) with probability alpha at most where p is true."""
    return mixture(hits, misses) - likelihood(hits, misses, p)


def proportion(hits, count, alpha, shares):
    """The least and the greatest of the shares that are not refuted."""
    kept = [p for p in shares if martingale(hits, count - hits, p) < math.log(1 / alpha)]
    return (min(kept), max(kept)) if kept else None


def difference(hits, count, other_hits, other_count, alpha, shares):
    """Of pairs of shares: between what is left where both together are not refuted, and where neither alone is."""
    ours = [(p, martingale(hits, count - hits, p)) for p in shares]
    theirs = [(q, martingale(other_hits, other_count - other_hits, q)) for q in shares]
    together = [p - q for p, one in ours for q, other in theirs if one + other < math.log(2 / alpha)]
    alone = [p - q for p, one in ours for q, other in theirs if max(one, other) < math.log(4 / alpha)]
    return max(min(together), min(alone)), min(max(together), max(alone))


def quantile(buckets, share, alpha):
    """Edge by edge, whether the share up to it may be `share`."""
    total, seen, low, high = sum(count for _, count in buckets), 0, 0.0, math.inf
    for edge, count in buckets:
        seen += count
        if martingale(seen, total - seen, share) >= math.log(1 / alpha):
            if seen < share * total:
                low = edge
            else:
                high = min(high, edge)
    return low, high


def divergence(share, p):
    """With 60 digits."""
    with decimal.localcontext(prec=60):
        share, p = decimal.Decimal(share), decimal.Decimal(p)
        parts = ((share, p), (1 - share, 1 - p))
        return float(sum(part * (part / other).ln() for part, other in parts if part)) if 0 < p < 1 else math.inf


def most_apart(share, count, other, other_count, most, divergence):
    """The greatest p - q that costs no more than `most`, by trying how much of it to spend on which of the two."""

    def furthest(inside, outside, spent, cost):
        if cost(outside) <= spent:
            return outside
        for _ in range(100):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if cost(middle) <= spent else (inside, middle)
        return inside

    def apart(spent):
        p = furthest(share, 1.0, most - spent, lambda p: count * divergence(share, p))
        return p - furthest(other, 0.0, spent, lambda q: other_count * divergence(other, q))

    low, high = 0.0, most
    for _ in range(60):     # what is gained by spending more on one grows ever less: a search by thirds
        third = (high - low) / 3
        low, high = (low + third, high) if apart(low + third) < apart(high - third) else (low, high - third)
    return max(apart(0.0), apart((low + high) / 2), apart(most))
