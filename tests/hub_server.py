"""A server that answers as the Hugging Face hub does, in this process, with repositories in memory.

It knows the requests of huggingface_hub for models: information, lists of files, downloads, new repositories, and
commits of small files.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"

_INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_PREUPLOAD = re.compile(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)")
_COMMIT = re.compile(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)")


class Hub:
    """The repositories: name → revision → path → content."""

    def __init__(self):
        self.models = {}
        self.private = set()
        self.downloads = []

    def sha(self, name, revision):
        return hashlib.sha1(f"{name}@{revision}".encode()).hexdigest()

    def files(self, name, revision):
        """Returns (the commit, the files) of a revision: a branch, or a commit."""
        revisions = self.models.get(name, {})
        for branch, files in revisions.items():
            if revision in (branch, self.sha(name, branch)):
                return self.sha(name, branch), files
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, content=b"", status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code):
        self._answer({"error": code}, 404, X_Error_Code=code, X_Error_Message=code)

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        if match := _FILE.fullmatch(path):
            name, revision, file = match.groups()
        elif match := (_TREE.fullmatch(path) or _INFO.fullmatch(path)):
            name, revision, file = match[1], match[2] or "main", None
        else:
            return self._answer({"error": path}, 404)
        if name not in hub.models:
            return self._missing("RepoNotFound")
        if (found := hub.files(name, revision)) is None:
            return self._missing("RevisionNotFound")
        sha, files = found
        if file is not None:
            if file not in files:
                return self._missing("EntryNotFound")
            if self.command == "GET":
                hub.downloads.append(file)
            etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
            return self._answer(files[file], ETag=etag, X_Repo_Commit=sha, Accept_Ranges="bytes")
        if _TREE.fullmatch(path):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self._answer(entries)
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        return self._answer({"id": name, "modelId": name, "sha": sha, "private": False, "siblings": siblings})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if path == "/api/validate-yaml":  # of a model card
            return self._answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            hub.models.setdefault(name, {"main": {}})
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(name)
            return self._answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if match := _PREUPLOAD.fullmatch(path):
            files = json.loads(body)["files"]
            return self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if match := _COMMIT.fullmatch(path):
            files = hub.models[match[1]][match[2]]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = hub.sha(match[1], match[2])
            url = f"http://{self.headers['Host']}/{match[1]}/commit/{commit}"
            return self._answer({"commitUrl": url, "commitOid": commit, "success": True})
        return self._answer({"error": path}, 404)


@contextlib.contextmanager
def serving():
    """Serves a hub; yields (its address, the hub)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
