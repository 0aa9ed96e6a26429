"""Object stores as pyarrow's clients reach them, and what they say when something fails."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

from safegen.errors import MissingExtra, SourceError, hidden

__all__ = ["NO_BUCKET", "NoObject", "StoreError", "connected", "told"]

_ASKED = re.compile(r"AWS_|GOOGLE_|CLOUDSDK_|CLOUD_STORAGE_|HTTPS?_PROXY|NO_PROXY", re.IGNORECASE)

_CONNECT_S, _SILENT_S, _ATTEMPTS = 10.0, 30.0, 3
"""How long a store may take to answer the door, and then be silent; and how often it is asked."""

NO_BUCKET = "no such bucket; create it, or see whether its store is the one in AWS_ENDPOINT_URL"


class StoreError(SourceError, OSError):
    """A store that gives no access, no answer, or nothing of that name; `strerror` says which."""

    def __init__(self, place: object, reason: str, number: int = errno.EIO):
        OSError.__init__(self, number, reason)
        self.place = str(place)

    def __str__(self) -> str:
        return f"{self.place}: {self.strerror}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.strerror, self.errno)


class NoObject(StoreError, FileNotFoundError):
    """Nothing of that name is in the bucket."""


def connected(scheme: str, bucket: str) -> Any:
    """The store of a bucket, as pyarrow has it. Raises: StoreError, MissingExtra."""
    asked = tuple(sorted((k, v) for k, v in os.environ.items() if _ASKED.match(k)))
    return _connected(scheme, bucket, asked, os.getpid())


@lru_cache(maxsize=16)
def _connected(scheme: str, bucket: str, asked: tuple[tuple[str, str], ...], process: int) -> Any:
    """A store as the environment has it: a forked process connects anew."""
    del process
    environment = dict(asked)
    place = f"{scheme}://{bucket}"
    try:
        from pyarrow import fs

        with told(place):
            if scheme == "gs":
                return fs.GcsFileSystem(
                    anonymous="CLOUD_STORAGE_EMULATOR_ENDPOINT" in environment,
                    retry_time_limit=timedelta(seconds=_SILENT_S),
                )
            return fs.S3FileSystem(
                **_endpoint(bucket, environment),
                connect_timeout=_CONNECT_S,
                request_timeout=_SILENT_S,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
                allow_delayed_open=True,  # a small object is one request
            )
    except ImportError:
        raise MissingExtra(
            f"this build of pyarrow reads no {scheme}://: pip install pyarrow (its wheels do)"
        ) from None


def _endpoint(bucket: str, environment: dict[str, str]) -> dict[str, str]:
    """Where a bucket is asked for: as the environment says, else in the region that it lies in."""
    url = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if url:
        scheme, sign, host = url.rpartition("://")
        return {"endpoint_override": host.rstrip("/"), **({"scheme": scheme} if sign else {})}
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region:
        return {"region": region}
    from pyarrow import fs

    return {"region": fs.resolve_s3_region(bucket)}


_REASONS = (
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|TOKEN|CREDENTIAL|HTTP status 40[13]|"
        r"PERMISSION|UNAUTHENTICATED|Permission|Forbidden",
        errno.EACCES,
        "no access with the environment's credentials; set AWS_PROFILE, AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS, of somebody who may",
    ),
    (r"NO_SUCH_BUCKET|bucket does not exist", errno.ENOENT, NO_BUCKET),
    (
        r"curlCode: 28|[Tt]ime(d )?out|DEADLINE",
        errno.ETIMEDOUT,
        "the store did not answer in time; try again, or see whether its endpoint is the right one "
        "(AWS_ENDPOINT_URL)",
    ),
    (
        r"curlCode|NETWORK_CONNECTION|UNAVAILABLE|[Cc]onnect|resolve",
        errno.EHOSTUNREACH,
        "the store cannot be reached; see whether this machine may, and its endpoint is the right "
        "one (AWS_ENDPOINT_URL)",
    ),
    (
        r"SLOW_DOWN|THROTTL|HTTP status (429|503)",
        errno.EAGAIN,
        "the store asks for fewer requests; try later",
    ),
)


@contextmanager
def told(place: object) -> Iterator[None]:
    """Tell what a store's client raises as a StoreError. Its text stays out: it names hosts,
    request ids, and what else the store's answer holds."""
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise NoObject(place, "no such key in the bucket", errno.ENOENT) from hidden(error)
    except (OSError, ValueError) as error:  # pyarrow's own derive from these
        text = re.sub(r"'[^']*'|Request ID[^)]*", "", str(error))  # names hold any word
        for pattern, number, reason in _REASONS:
            if re.search(pattern, text):
                raise StoreError(place, reason, number) from hidden(error)
        code = re.search(r"AWS Error ([A-Z_]+)", text)
        what = f"the store failed{f' with {code[1]}' if code else ''}; try again"
        raise StoreError(place, what) from hidden(error)
