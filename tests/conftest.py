"""Hypothesis profiles: `laws` gives the same examples every time and knows no clock.

With SLOW=1, as CI runs the tests, it gives more of them. `pytest --hypothesis-profile=hunt` looks
further, with new examples in each run.
"""

import os
import signal

from hypothesis import HealthCheck, settings

calm = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
examples = 100 if os.environ.get("SLOW") == "1" else 40
settings.register_profile(
    "laws", deadline=None, derandomize=True, max_examples=examples, suppress_health_check=calm
)
settings.register_profile("hunt", deadline=None, max_examples=2000, suppress_health_check=calm)
settings.load_profile("laws")

# A shell starts background jobs with SIGINT ignored, and commands would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
