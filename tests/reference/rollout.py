"""Whatever may have been counted in a rollout."""

from hypothesis import strategies as st

from batchmill.rollout import evidence
from batchmill.rollout.evidence import Arm, Evidence, Moments, Shadow

numbers = st.lists(st.floats(-20, 20), max_size=8)
moments = numbers.map(Moments.of)
buckets = st.dictionaries(st.sampled_from([0.001, 0.002, 0.004, 0.1]), st.integers(1, 1000)).map(evidence.buckets_of)
arms = st.integers(0, 10**9).flatmap(lambda count: st.builds(Arm, st.just(count), st.integers(0, count), moments, buckets, moments))
shadows = st.integers(0, 10**9).flatmap(lambda count: st.builds(Shadow, st.just(count), st.integers(0, count), st.integers(0, 100), moments))
evidences = st.builds(Evidence, arms, arms, shadows)
