"""The slow, obvious twins of rollout/sequential.py: martingales by summing up, intervals by trying every share of a grid."""

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
    """The same of pairs of shares, that are refuted together or one alone."""
    ours = [(p, martingale(hits, count - hits, p)) for p in shares]
    theirs = [(q, martingale(other_hits, other_count - other_hits, q)) for q in shares]
    kept = [p - q for p, one in ours for q, other in theirs if one + other < math.log(2 / alpha) and max(one, other) < math.log(4 / alpha)]
    return (min(kept), max(kept)) if kept else None


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
