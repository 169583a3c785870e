"""For all tests: how long an example of hypothesis takes says something of the machine, and nothing of the code."""

from hypothesis import settings

settings.register_profile("batchmill", deadline=None)
settings.load_profile("batchmill")
