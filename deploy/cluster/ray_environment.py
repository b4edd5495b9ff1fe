"""Environment variables that Ray reads when it is imported: set them before anything imports ray."""

import os
import secrets


def set_ray_environment(log_format: str = "text") -> None:
    """Turn off usage reports, and keep GPUs from processes that reserve none.

    A local Ray listens only on loopback and asks for a token that only this run knows.

    If log lines are JSON, Ray forwards the workers' lines unchanged, without prefix or deduplication.

    The authentication of a given cluster (RAY_ADDRESS) stays as the environment sets it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # who reserves no GPU sees none
    if log_format == "json":
        os.environ.setdefault("RAY_DISABLE_WORKER_LOG_PREFIX", "1")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    if os.environ.get("RAY_ADDRESS"):
        return
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default of 15 starves beside any other program
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # otherwise it binds to all interfaces
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
