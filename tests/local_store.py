"""A bucket of an S3 server in the tests' own process, with a back door: the fixture `store`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRET = "wJalrXUtnFEMI-a-secret-that-nobody-shows"


@dataclass(frozen=True)
class Store:
    """A bucket of a real S3 server in this process, with a back door."""

    client: Any
    bucket: str
    server: str

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def names(self, prefix: str = "") -> list[str]:
        """The objects with something in them: an empty one stands for a folder."""
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [o["Key"] for o in found.get("Contents", []) if o["Size"]]

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def put(self, key: str, data: bytes | Path) -> str:
        body = data if isinstance(data, bytes) else data.read_bytes()
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)
