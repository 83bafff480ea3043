"""How long each reader is fuzzed: RELEARN_FUZZ_EXAMPLES inputs a test, 25 unless set; `make fuzz` sets more."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("RELEARN_FUZZ_EXAMPLES", "25"))

settings.register_profile(
    "relearn",
    max_examples=EXAMPLES,
    deadline=None,  # the machine is shared
    derandomize=EXAMPLES <= 25,  # `make test` tries the same inputs each time, `make fuzz` others
    database=None,  # nothing is left in the folder
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("relearn")
