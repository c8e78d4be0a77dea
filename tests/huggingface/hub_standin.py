"""A stand-in for the Hugging Face Hub: a server of this process, and its cache on disk.

It answers what `huggingface_hub` asks when it downloads a model or uploads one, with the Hub's
paths, statuses and headers; small files only, which the Hub keeps in git ("regular").
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub import constants

Files = Mapping[str, bytes]
"""What a repository holds at a commit, by path."""

TOKEN = "hf_writer"
"""Of the user `owner`."""


@dataclasses.dataclass
class Repo:
    """A repository, whose commits are named by what they hold."""

    commits: dict[str, Files] = dataclasses.field(default_factory=dict)
    refs: dict[str, str] = dataclasses.field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Files, ref: str = "main") -> str:
        """Adds a commit, and returns its hash."""
        told = json.dumps({name: hashlib.sha1(held).hexdigest() for name, held in files.items()})
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[ref] = commit
        return commit


class Hub:
    """Repositories by name, and every request that was made: (method, path)."""

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.asked: list[tuple[str, str]] = []

    def repo(self, name: str, files: Files, **options) -> Repo:
        """A repository with one commit."""
        self.repos[name] = Repo(**options)
        self.repos[name].commit(files)
        return self.repos[name]

    def downloaded(self) -> set[str]:
        """The files whose content was asked for, by path."""
        return {path.split("/", 5)[5] for method, path in self.asked if "/resolve/" in path}


def files_of(directory: Path) -> dict[str, bytes]:
    """What a directory holds."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def cache(place: Path, name: str, files: Files, ref: str = "main") -> str:
    """Writes a snapshot as `huggingface_hub` caches it, under `place`; returns its commit."""
    folder = place / constants.REPO_ID_SEPARATOR.join(["models", *name.split("/")])
    commit = Repo().commit(files)
    for path, content in files.items():
        blob = folder / "blobs" / hashlib.sha1(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = folder / "snapshots" / commit / path
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "/".join([".."] * (2 + path.count("/")))
        link.symlink_to(f"{up}/blobs/{blob.name}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / ref).write_text(commit)
    return commit


@contextlib.contextmanager
def serving(monkeypatch, place: Path) -> Iterator[Hub]:
    """The Hub that `huggingface_hub` asks, with a cache under `place`, and nobody logged in."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    of_cache(monkeypatch, place, offline=False)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def of_cache(monkeypatch, place: Path, *, offline: bool) -> None:
    """Makes `huggingface_hub` keep its cache and its token under `place`."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(place / "stored_tokens"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._read()

    def do_GET(self):
        self._read()

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        path, content = self._path(), self.rfile.read(size)
        match path.strip("/").split("/"):
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                self._create(json.loads(content))
            case ["api", "models", owner, name, "preupload", _]:
                if self._may_write(owner):
                    files = [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in json.loads(content)["files"]
                    ]
                    self._json({"files": files})
            case ["api", "models", owner, name, "commit", ref]:
                if self._may_write(owner):
                    self._commit(f"{owner}/{name}", ref, content)
            case _:
                self._refuse(404, "", f"no POST {path}")

    def _path(self) -> str:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        return path

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _read(self):
        match self._path().strip("/").split("/"):
            case ["api", "datasets", *_]:
                self._refuse(401, "RepoNotFound", "Repository not found")
            case ["api", "models", owner, name]:
                self._answer(f"{owner}/{name}", "main", self._info)
            case ["api", "models", owner, name, "revision", *ref]:
                self._answer(f"{owner}/{name}", "/".join(ref), self._info)
            case ["api", "models", owner, name, "tree", *ref]:
                self._answer(f"{owner}/{name}", "/".join(ref), self._tree)
            case [owner, name, "resolve", ref, *path]:
                send = lambda *at: self._file("/".join(path), *at)  # noqa: E731
                self._answer(f"{owner}/{name}", ref, send)
            case path:
                self._refuse(404, "", f"no {'/'.join(path)}")

    def _answer(self, name: str, ref: str, send) -> None:
        """Sends what was asked of a commit, or why not."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self._token != TOKEN):
            # The Hub tells those who are not logged in that they might have to be.
            status = 404 if self._token == TOKEN else 401
            self._refuse(status, "RepoNotFound", "Repository not found")
        elif (commit := repo.refs.get(ref, ref)) not in repo.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {ref}")
        else:
            send(name, repo, commit)

    def _info(self, name: str, repo: Repo, commit: str) -> None:
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        about = {"id": name, "sha": commit, "private": repo.private, "siblings": siblings}
        self._json(about | {"gated": "auto" if repo.gated else False, "tags": [], "downloads": 0})

    def _tree(self, name: str, repo: Repo, commit: str) -> None:
        files = repo.commits[commit].items()
        held = [(path, hashlib.sha1(content).hexdigest(), len(content)) for path, content in files]
        self._json([{"type": "file", "path": p, "oid": o, "size": s} for p, o, s in held])

    def _file(self, path: str, name: str, repo: Repo, commit: str) -> None:
        if repo.gated:
            message = f"Access to model {name} is restricted."
            self._refuse(403 if self._token else 401, "GatedRepo", message)
        elif path not in repo.commits[commit]:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            content = repo.commits[commit][path]
            etag = hashlib.sha1(content).hexdigest()
            self._send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _create(self, asked: Mapping) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write(asked["organization"]):
            return
        if name in self.hub.repos:
            self._refuse(409, "", "You already created this model repo")
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repo(name, {".gitattributes": b""}, private=private)
        self._json({"url": f"{constants.ENDPOINT}/{name}"})

    def _commit(self, name: str, ref: str, content: bytes) -> None:
        repo = self.hub.repos[name]
        files = dict(repo.commits[repo.refs[ref]])
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files, ref)
        url = f"{constants.ENDPOINT}/{name}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit})

    def _may_write(self, owner: str) -> bool:
        if self._token != TOKEN:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif owner != "owner":
            self._refuse(403, "", f'You don\'t have the rights to write under "{owner}"')
        return self._token == TOKEN and owner == "owner"

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
