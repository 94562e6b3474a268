"""A server of Google Cloud Storage's JSON API in this process, which keeps objects in memory.

It knows the requests of TensorStore, gcsfs and google-cloud-storage: buckets, and objects that are read, listed,
written whole or in one resumable upload, copied and deleted, with the conditions on their generations.
"""

import base64
import contextlib
import itertools
import json
import re
import threading
import zlib
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)")
_COPY = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)")
_MOVE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/moveTo/o/([^/]+)")
_OBJECTS = re.compile(r"/storage/v1/b/([^/]+)/o/?")
_UPLOADS = re.compile(r"/upload/storage/v1/b/([^/]+)/o/?")
_BUCKET = re.compile(r"/storage/v1/b/([^/]+)")


class RefusedError(Exception):
    """An answer with an HTTP status other than 200."""


class Storage:
    """The objects of all buckets: (bucket, name) → (generation, content). Any bucket exists."""

    def __init__(self):
        self.objects, self.uploads = {}, {}
        self.lock, self._generations = threading.Lock(), itertools.count(1)

    def names(self, bucket="bucket"):
        """Returns the names of the objects in a bucket."""
        return sorted(name for found, name in self.objects if found == bucket)

    def read(self, key, query):
        with self.lock:
            if key not in self.objects:
                raise RefusedError(404)
            self._check(key, query)
            return self.objects[key]

    def write(self, key, content, query):
        with self.lock:
            self._check(key, query)
            self.objects[key] = (next(self._generations), bytes(content))
            return self.objects[key]

    def delete(self, key, query):
        with self.lock:
            if key not in self.objects:
                raise RefusedError(404)
            self._check(key, query)
            del self.objects[key]

    def _check(self, key, query):
        generation = self.objects.get(key, (0,))[0]
        if int(query.get("ifGenerationMatch", generation)) != generation:
            raise RefusedError(412)
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == generation:
            raise RefusedError(304)


def _facts(key, entry):
    generation, content = entry
    checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    return {
        "kind": "storage#object", "bucket": key[0], "name": key[1], "id": f"{key[0]}/{key[1]}/{generation}",
        "generation": str(generation), "metageneration": "1", "size": str(len(content)), "etag": checksum,
        "timeCreated": "2020-01-01T00:00:00.000Z", "updated": "2020-01-01T00:00:00.000Z",
        "contentType": "application/octet-stream", "storageClass": "STANDARD",
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self):
        with contextlib.suppress(ConnectionError):  # a client that has what it wanted
            super().handle()

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def do_DELETE(self):
        self._answer("DELETE")

    def _answer(self, method):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, headers, content = answer(self.server.storage, method, self.path, dict(self.headers), body)
        except RefusedError as refused:
            status, headers = refused.args[0], {}
            content = json.dumps({"error": {"code": status, "message": f"status {status}"}}).encode()
        if "Location" in headers:
            headers["Location"] = f"http://{self.headers['Host']}{headers['Location']}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(content)


def answer(storage, method, target, headers, body):
    """Returns (status, headers, content) of a request."""
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    headers = {name.lower(): value for name, value in headers.items()}
    if url.path.startswith("/batch/"):
        return _batch(storage, headers, body)
    if found := _COPY.fullmatch(url.path):
        names = [unquote(part) for part in found.groups()]
        key = (names[2], names[3])
        facts = _facts(key, storage.write(key, storage.read((names[0], names[1]), {})[1], query))
        return _json({"kind": "storage#rewriteResponse", "done": True, "resource": facts})
    if found := _MOVE.fullmatch(url.path):
        bucket, source, target = (unquote(part) for part in found.groups())
        entry = storage.write((bucket, target), storage.read((bucket, source), {})[1], query)
        storage.delete((bucket, source), {})
        return _json(_facts((bucket, target), entry))
    if found := _UPLOADS.fullmatch(url.path):
        return _upload(storage, unquote(found[1]), query, headers, body)
    if found := _OBJECTS.fullmatch(url.path):
        return _json(_listed(storage, unquote(found[1]), query))
    if found := _OBJECT.fullmatch(url.path):
        key = unquote(found[1]), unquote(found[2])
        if method == "DELETE":
            storage.delete(key, query)
            return 204, {}, b""
        entry = storage.read(key, query)
        return _content(entry, headers) if query.get("alt") == "media" else _json(_facts(key, entry))
    if found := _BUCKET.fullmatch(url.path):
        return _json({"kind": "storage#bucket", "name": found[1], "id": found[1], "location": "US"})
    raise RefusedError(404)


def _json(value, status=200):
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _content(entry, headers):
    generation, content = entry
    extra = {"x-goog-generation": str(generation), "Content-Type": "application/octet-stream"}
    if found := re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", "")):
        size = len(content)
        first = int(found[1]) if found[1] else max(0, size - int(found[2]))
        last = min(int(found[2]), size - 1) if found[1] and found[2] else size - 1
        if first >= size:
            raise RefusedError(416)
        extra["Content-Range"] = f"bytes {first}-{last}/{size}"
        return 206, extra, content[first : last + 1]
    return 200, extra, content


def _listed(storage, bucket, query):
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    with storage.lock:
        entries = sorted((key, entry) for key, entry in storage.objects.items() if key[0] == bucket)
    items, prefixes = [], set()
    for key, entry in entries:
        name = key[1]
        if not name.startswith(prefix) or name < query.get("startOffset", ""):
            continue
        if "endOffset" in query and name >= query["endOffset"]:
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            prefixes.add(prefix + rest[: rest.index(delimiter) + 1])
        else:
            items.append(_facts(key, entry))
    return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


def _upload(storage, bucket, query, headers, body):
    kind = query.get("uploadType")
    if kind == "media":
        key = bucket, query["name"]
        return _json(_facts(key, storage.write(key, body, query)))
    if kind == "multipart":
        head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
        facts, content = BytesParser().parsebytes(head + body).get_payload()
        key = bucket, json.loads(facts.get_payload())["name"]
        return _json(_facts(key, storage.write(key, _raw(body, content), query)))
    if "upload_id" not in query:
        number = str(len(storage.uploads))
        storage.uploads[number] = [json.loads(body or b"{}").get("name", query.get("name")), b"", query]
        return 200, {"Location": f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"}, b""
    upload = storage.uploads[query["upload_id"]]
    upload[1] += body
    if not headers.get("content-range", "").endswith("/*"):
        key = bucket, upload[0]
        return _json(_facts(key, storage.write(key, upload[1], upload[2])))
    return 308, {"Range": f"bytes=0-{len(upload[1]) - 1}"}, b""


def _raw(body, part):
    """Returns the last part of a multipart body, byte for byte."""
    boundary = b"--" + re.match(rb"--([^\r\n]+)", body)[1]
    last = body.split(boundary)[2]
    return last.partition(b"\r\n\r\n" if b"\r\n\r\n" in last else b"\n\n")[2].removesuffix(b"\n").removesuffix(b"\r")


def _batch(storage, headers, body):
    """Answers several requests at once: deletions."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    parts = []
    for part in BytesParser().parsebytes(head + body).get_payload():
        method, target = part.get_payload().split()[:2]
        try:
            status = answer(storage, method, target, {}, b"")[0]
        except RefusedError as refused:
            status = refused.args[0]
        parts.append(f"--end\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} \r\n\r\n\r\n")
    return 200, {"Content-Type": "multipart/mixed; boundary=end"}, "".join([*parts, "--end--"]).encode()


@contextlib.contextmanager
def serving():
    """Yields (the storage, its address) while a thread serves it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.storage = True, Storage()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.storage, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
