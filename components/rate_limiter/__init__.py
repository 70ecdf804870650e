"""
How often something may happen: so many times a period, per user or altogether.

    limits = app.use(component, name="limits")
    limiter = RateLimiter(limits, send=TokenBucket(rate=10, period=timedelta(minutes=1)))

    await limiter.limit(ctx, "send", key=user, throws=True)

It is a part of the caller's transaction: if that fails, the tokens come back.
README.md says more.
"""

from components.rate_limiter.client import (
    CalculatedRateLimit,
    Limit,
    RateLimiter,
    calculate_rate_limit,
    is_rate_limit_error,
)
from components.rate_limiter.config import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    WEEK,
    FixedWindow,
    RateLimitConfig,
    TokenBucket,
)
from components.rate_limiter.functions import RateLimitValue
from engine import Component

component = Component("rate_limiter")

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "SECOND",
    "WEEK",
    "CalculatedRateLimit",
    "FixedWindow",
    "Limit",
    "RateLimitConfig",
    "RateLimitValue",
    "RateLimiter",
    "TokenBucket",
    "calculate_rate_limit",
    "component",
    "is_rate_limit_error",
]
