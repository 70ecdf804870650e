"""
How often something may happen: so many times a period, per user or altogether.

    limits = app.use(component, name="limits")
    limiter = RateLimiter(limits, send=TokenBucket(rate=10, period=timedelta(minutes=1)))

    await limiter.limit(ctx, "send", key=user, throws=True)

It is a part of the caller's transaction: if that fails, the tokens come back.
README.md says more.
"""

from components.rate_limiter.bucket import TokenBucket
from components.rate_limiter.client import Limit, RateLimiter
from engine import Component

component = Component("rate_limiter")

__all__ = ["Limit", "RateLimiter", "TokenBucket", "component"]
