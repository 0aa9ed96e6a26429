"""As much of Google's storage protocol as pyarrow asks for. `python google_store.py [CODE]` serves
it, says at which port, and answers everything with that code, if there is one.

A process of its own: pyarrow keeps the interpreter's lock while it waits for this store.
"""

from __future__ import annotations

import http.server
import json
import re
import sys
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit


class Google(http.server.BaseHTTPRequestHandler):
    """As much of the JSON API as is asked for, with one bucket, `box`."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    failing: ClassVar[int] = 0

    def _answer(self, code: int, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _about(self, name: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "bucket": "box",
            "name": name,
            "generation": "1",
            "size": str(len(self.objects[name])),
            "updated": "2026-01-02T03:04:05.000Z",
        }

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        found = re.fullmatch(r"(?:/upload)?/storage/v1/b/box(?:/o(?:/(.*))?)?", url.path)
        name = unquote(found[1] or "") if found else ""
        if self.failing:
            self._answer(self.failing, {"error": {"code": self.failing, "message": "no"}})
        elif not found:
            self._answer(404, {"error": {"code": 404, "message": "Not Found"}})
        elif self.command == "POST":
            at = f"http://{self.headers['host']}/upload/storage/v1/b/box/o/{query['name']}"
            self._answer(200, b"", location=at)
        elif self.command == "PUT":
            self.objects[name] = self.objects.get(name, b"") + body
            self._answer(200, self._about(name))
        elif not name:
            self._list(query)
        elif name not in self.objects:
            self._answer(404, {"error": {"code": 404, "message": "Not Found"}})
        elif self.command == "DELETE":
            del self.objects[name]
            self._answer(204)
        elif query.get("alt") == "media":
            first, _, last = (
                self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
            )
            whole = self.objects[name]
            data = whole[int(first) : int(last) + 1 if last else None]
            stop = int(first) + len(data) - 1
            self._answer(206, data, content_range=f"bytes {first}-{stop}/{len(whole)}")
        else:
            self._answer(200, self._about(name))

    def _list(self, query: dict[str, str]) -> None:
        prefix, cut = query.get("prefix", ""), query.get("delimiter")
        names = sorted(n for n in self.objects if n.startswith(prefix))
        folders = {
            prefix + n[len(prefix) :].split("/")[0] + "/"
            for n in names
            if cut and "/" in n[len(prefix) :]
        }
        items = [n for n in names if not any(n.startswith(f) for f in folders)]
        self._answer(200, {"items": [self._about(n) for n in items], "prefixes": sorted(folders)})

    do_GET = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, *given: object) -> None:
        pass


if __name__ == "__main__":
    Google.failing = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Google) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
