"""Hypothesis profiles: `laws` gives the same examples every time and knows no clock.

`pytest --hypothesis-profile=hunt` looks further, with new examples in each run.
"""

from hypothesis import HealthCheck, settings

calm = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile(
    "laws", deadline=None, derandomize=True, max_examples=100, suppress_health_check=calm
)
settings.register_profile("hunt", deadline=None, max_examples=2000, suppress_health_check=calm)
settings.load_profile("laws")
