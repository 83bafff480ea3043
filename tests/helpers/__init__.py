"""What several test modules share, by topic; fixtures are in conftest.py."""

import pytest

# a failed assert in these says as much as one in a test
pytest.register_assert_rewrite(
    "helpers.engines", "helpers.interruptible", "helpers.params_text", "helpers.slurm_cluster"
)
