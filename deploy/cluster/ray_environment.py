"""Environment variables that Ray reads when it is imported: set them before anything imports ray."""

import os
import secrets


def set_ray_environment(log_format: str = "text") -> None:
    """No usage reports; and a local Ray listens on loopback alone and asks for a token only this run knows.

    Where log lines are JSON, Ray hands on those of workers as they are, without a prefix and each of them.

    Leaves the authentication of a given cluster (RAY_ADDRESS) to the environment it was started with.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if log_format == "json":
        os.environ.setdefault("RAY_DISABLE_WORKER_LOG_PREFIX", "1")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    if os.environ.get("RAY_ADDRESS"):
        return
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves beside anything else that runs
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else it binds to all interfaces
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
