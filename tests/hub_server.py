"""A small Hub on the loopback interface: what the real `huggingface_hub` client needs to push, look up and download.

For tests, and by hand to run a command that names a Hub model on a machine without a network:

    python tests/hub_server.py --serve google/vit-base-patch16-224=FOLDER

Then set the variables it prints (`HF_ENDPOINT` and the rest). Repositories need an owner (`owner/name`). Contents are
kept in a folder by their SHA-256, refs and commits in memory. Anyone may read public repositories; private ones need
the one token, and writing needs it and a repository of the one user's. Not a Hub: no Xet, no git, no search.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

__all__ = ["TOKEN", "HubServer", "Refusal"]

TOKEN = "hf_" + "loopback" * 4
USER = "tester"
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".png", ".jpg", ".parquet", ".arrow", ".zip")
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass(frozen=True)
class Blob:
    """One content: its SHA-256 (LFS id), its git object id and whether a commit declared it as LFS."""

    sha256: str
    git_oid: str
    size: int
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


@dataclass
class Repo:
    repo_id: str
    kind: str
    private: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def commit(self, ref: str, files: dict[str, Blob], message: str) -> str:
        parent = self.refs.get(ref, "")
        content = json.dumps([parent, message, sorted((path, blob.etag) for path, blob in files.items())])
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid], self.messages[oid], self.refs[ref] = files, message, oid
        return oid


class HubServer:
    """Serve repositories on `http://127.0.0.1:PORT` until closed; also a context manager.

    Args:
        root: folder for the contents; made if missing.
        port: 0 takes a free one.
        token: the only valid access token.

    Attributes:
        url: the endpoint.
        requests: (method, path, authorization header or None) of everything that was asked for.
        intercept: called with method and path before anything is done; it may wait, raise `Refusal`, or raise anything
            else to cut the connection.
    """

    def __init__(self, root: str | Path, *, port: int = 0, token: str = TOKEN) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.token = token
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.intercept: Callable[[str, str], None] = lambda method, path: None
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add_repo(
        self, repo_id: str, folder: str | Path | None = None, *, repo_type: str = "model", private: bool = False
    ) -> str:
        """Make a repository, with the files of `folder` as its first commit, and return the commit's id."""
        files = {}
        if folder is not None:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    name = path.relative_to(folder).as_posix()
                    files[name] = self.store(path.read_bytes(), lfs=path.suffix in LFS_SUFFIXES)
        with self.lock:
            repo = self.repos[repo_type, repo_id] = Repo(repo_id, repo_type, private)
            return repo.commit("main", files, "initial commit")

    def files(self, repo_id: str, revision: str = "main", *, repo_type: str = "model") -> dict[str, bytes]:
        """The contents of a repository by path."""
        repo = self.repos[repo_type, repo_id]
        commit = repo.resolve(revision)
        assert commit is not None, f"{repo_id} has no revision {revision}"
        return {path: self.content(blob.sha256) for path, blob in repo.commits[commit].items()}

    def commits(self, repo_id: str, *, repo_type: str = "model") -> list[str]:
        """The messages of all commits, oldest first, the initial one included."""
        return list(self.repos[repo_type, repo_id].messages.values())

    def environment(self, home: str | Path) -> dict[str, str]:
        """The environment of a subprocess that is logged in here and has an empty cache at `home`."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        inherited.pop("TRANSFORMERS_OFFLINE", None)
        return inherited | self.variables() | {"HF_HOME": str(home), "HF_TOKEN": self.token}

    def variables(self) -> dict[str, str]:
        """What to set so that the client talks to this server, by plain HTTP uploads, past any proxy."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def store(self, content: bytes, *, lfs: bool) -> Blob:
        digest = hashlib.sha256(content).hexdigest()
        path = self.root / digest
        if not path.exists():
            path.write_bytes(content)
        return self.describe(digest, lfs=lfs)

    def describe(self, digest: str, *, lfs: bool) -> Blob:
        content = self.content(digest)
        git_oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return Blob(digest, git_oid, len(content), lfs)

    def content(self, digest: str) -> bytes:
        return (self.root / digest).read_bytes()


class Refusal(Exception):
    """An answer with an error status; `code` is the Hub's own, by which the client knows what is missing."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message, **headers} | ({"X-Error-Code": code} if code else {})


def _front_matter_errors(content: str) -> list[str]:
    """What the Hub checks of a model card's metadata, as far as these tests need it."""
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", content, re.DOTALL)
    if match is None:
        return []
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"not valid YAML: {error}"]
    if not isinstance(data, dict):
        return ["the metadata must be a mapping"]
    errors = []
    for key in ("tags", "datasets", "metrics"):
        values = data.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            errors.append(f'"{key}" must be a list of strings')
    for key in ("license", "library_name", "pipeline_tag"):
        if not isinstance(data.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    for model in data.get("model-index", []):
        for result in model.get("results", []):
            if not result.get("task", {}).get("type"):
                errors.append('"model-index[0].results[0].task.type" is required')
            if not {"name", "type"} <= set(result.get("dataset", {})):
                errors.append('"model-index[0].results[0].dataset" needs a name and a type')
            if not all({"type", "value"} <= set(metric) for metric in result.get("metrics", [{}])):
                errors.append('"model-index[0].results[0].metrics" need a type and a value')
    return errors


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer()

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self) -> None:
            # The body is read first, always: what is left unread would be taken for the next request.
            body = self.body()
            parts = urlsplit(self.path)
            self.query = parse_qs(parts.query)
            authorization = self.headers.get("Authorization")
            hub.requests.append((self.command, parts.path, authorization))
            try:
                hub.intercept(self.command, parts.path)
                if authorization not in (None, f"Bearer {hub.token}"):
                    raise Refusal(401, "Invalid credentials in Authorization header")
                with hub.lock:
                    self.route(parts.path, body)
            except Refusal as refusal:
                self.reply(refusal.status, {"error": refusal.message}, **refusal.headers)
            except ConnectionError:
                self.close_connection = True

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                chunks = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def reply(self, status: int, content: Any = b"", **headers: str) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
            headers = {"Content-Type": kind, "Content-Length": str(len(data))} | headers
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def logged_in(self) -> bool:
            return self.headers.get("Authorization") is not None

        def require_login(self) -> None:
            if not self.logged_in():
                raise Refusal(401, "Invalid username or password.")

        def require_own(self, owner: str, message: str) -> None:
            if owner != USER:
                raise Refusal(403, message)

        def repo(self, kind: str, repo_id: str) -> Repo:
            repo = hub.repos.get((kind, repo_id))
            if repo is None or (repo.private and not self.logged_in()):
                # Like the Hub: strangers cannot tell a missing repository from a private one.
                raise Refusal(404 if self.logged_in() else 401, "Repository not found", "RepoNotFound")
            return repo

        def commit(self, repo: Repo, revision: str) -> str:
            commit = repo.resolve(revision)
            if commit is None:
                raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return commit

        def route(self, path: str, body: bytes) -> None:
            read = self.command in ("GET", "HEAD")
            if path == "/api/whoami-v2" and read:
                self.require_login()
                access = {"accessToken": {"displayName": "test", "role": "write"}}
                return self.reply(200, {"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": access})
            if path == "/api/validate-yaml":
                errors = [{"message": message} for message in _front_matter_errors(json.loads(body)["content"])]
                return self.reply(400 if errors else 200, {"errors": errors, "warnings": []})
            if path == "/api/repos/create":
                return self.create_repo(json.loads(body))
            if match := re.fullmatch(r"/_lfs/([0-9a-f]{64})", path):
                return self.receive(match[1], body)
            if match := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)", path):
                return self.batch(body) if match[3] == "batch" else self.verify(body)
            if match := re.fullmatch(r"/api/(model|dataset|space)s/([^/]+/[^/]+)(?:/([^/]+))?(?:/(.*))?", path):
                kind, repo_id, action, rest = match[1], match[2], match[3], match[4] or ""
                return self.api(self.repo(kind, repo_id), action, rest, body)
            if (match := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) and read:
                kind = (match[1] or "models/")[:-2]
                return self.resolve(self.repo(kind, match[2]), unquote(match[3]), unquote(match[4]))
            raise Refusal(404, f"{self.command} {path} is not served here")

        def api(self, repo: Repo, action: str | None, rest: str, body: bytes) -> None:
            if action is None or action == "revision":
                return self.info(repo, unquote(rest) or "main")
            if action == "refs":
                branches = [{"name": k, "ref": f"refs/heads/{k}", "targetCommit": v} for k, v in repo.refs.items()]
                return self.reply(200, {"branches": branches, "converts": [], "tags": [], "pullRequests": []})
            if action == "tree":
                revision, _, folder = rest.partition("/")
                return self.tree(repo, unquote(revision), unquote(folder))
            if action == "paths-info":
                return self.paths_info(repo, unquote(rest), body)
            self.require_login()
            self.require_own(repo.repo_id.split("/")[0], "Forbidden: pass `create_pr=1` to create a Pull Request")
            if action == "preupload":
                return self.preupload(repo, unquote(rest), json.loads(body)["files"])
            if action == "commit":
                return self.receive_commit(repo, unquote(rest), body)
            if action == "branch":
                return self.create_branch(repo, unquote(rest), json.loads(body or b"{}"))
            if action == "settings":
                return self.reply(200, {})
            raise Refusal(404, f"{action} is not served here")

        def create_repo(self, wanted: dict[str, Any]) -> None:
            self.require_login()
            kind = wanted.get("type") or "model"
            owner = wanted.get("organization") or USER
            self.require_own(owner, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
            repo_id = f"{owner}/{wanted['name']}"
            url = f"{hub.url}/{PREFIXES[kind]}{repo_id}"
            if (kind, repo_id) in hub.repos:
                return self.reply(409, {"error": "You already created this repo", "url": url})
            hub.add_repo(repo_id, repo_type=kind, private=wanted.get("visibility") == "private")
            self.reply(200, {"url": url, "name": repo_id, "id": repo_id})

        def create_branch(self, repo: Repo, name: str, wanted: dict[str, Any]) -> None:
            if name in repo.refs:
                raise Refusal(409, "Reference already exists")
            repo.refs[name] = self.commit(repo, wanted.get("startingPoint", "main"))
            self.reply(201, {})

        def info(self, repo: Repo, revision: str) -> None:
            commit = self.commit(repo, revision)
            files = repo.commits[commit]
            card = hub.content(files["README.md"].sha256).decode() if "README.md" in files else ""
            match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
            data = yaml.safe_load(match[1]) if match else {}
            info = {
                "_id": commit[:24],
                "id": repo.repo_id,
                "modelId": repo.repo_id,
                "author": repo.repo_id.split("/")[0],
                "sha": commit,
                "private": repo.private,
                "gated": False,
                "disabled": False,
                "tags": data.get("tags", []),
                "library_name": data.get("library_name"),
                "pipeline_tag": data.get("pipeline_tag"),
                "cardData": data,
                "siblings": [{"rfilename": path} for path in files],
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "downloads": 0,
                "likes": 0,
            }
            self.reply(200, info)

        def entry(self, path: str, blob: Blob) -> dict[str, Any]:
            entry: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
            if blob.lfs:
                entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
            return entry

        def tree(self, repo: Repo, revision: str, folder: str) -> None:
            commit = self.commit(repo, revision)
            prefix = f"{folder}/" if folder else ""
            inside = {path: blob for path, blob in repo.commits[commit].items() if path.startswith(prefix)}
            if folder and not inside:
                raise Refusal(404, f"{folder} does not exist", "EntryNotFound", **{"X-Repo-Commit": commit})
            recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
            folders = {str(parent) for path in inside for parent in Path(path).parents if str(parent) != "."}
            entries = [
                {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
                for path in sorted(folders)
                if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])
            ]
            entries += [
                self.entry(path, blob) for path, blob in inside.items() if recursive or "/" not in path[len(prefix) :]
            ]
            self.reply(200, entries, **{"X-Repo-Commit": commit})

        def paths_info(self, repo: Repo, revision: str, body: bytes) -> None:
            wanted = parse_qs(body.decode())["paths"] if body[:1] != b"{" else json.loads(body)["paths"]
            files = repo.commits[self.commit(repo, revision)]
            entries = [self.entry(path, files[path]) for path in wanted if path in files]
            entries += [
                {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
                for path in wanted
                if any(name.startswith(f"{path}/") for name in files)
            ]
            self.reply(200, entries)

        def resolve(self, repo: Repo, revision: str, path: str) -> None:
            commit = self.commit(repo, revision)
            blob = repo.commits[commit].get(path)
            if blob is None:
                raise Refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit})
            headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
            if blob.lfs:
                headers |= {"X-Linked-Size": str(blob.size), "X-Linked-Etag": f'"{blob.sha256}"'}
            content = hub.content(blob.sha256)
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start, end = int(match[1]), min(int(match[2] or blob.size), blob.size - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{blob.size}"
                return self.reply(206, content[start : end + 1], **headers)
            self.reply(200, content, **headers)

        def preupload(self, repo: Repo, revision: str, files: list[dict[str, Any]]) -> None:
            known = repo.commits[self.commit(repo, revision)]
            answers = []
            for file in files:
                binary = b"\0" in base64.b64decode(file["sample"]) or file["path"].endswith(LFS_SUFFIXES)
                mode = "lfs" if binary or file["size"] > 10_000_000 else "regular"
                answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
                if file["path"] in known:
                    answer["oid"] = known[file["path"]].etag
                answers.append(answer)
            self.reply(200, {"files": answers})

        def batch(self, body: bytes) -> None:
            self.require_login()
            objects = []
            for wanted in json.loads(body)["objects"]:
                answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
                if not (hub.root / wanted["oid"]).exists():
                    answer["actions"] = {
                        "upload": {"href": f"{hub.url}/_lfs/{wanted['oid']}"},
                        "verify": {"href": f"{hub.url}/{USER}/any.git/info/lfs/objects/verify"},
                    }
                objects.append(answer)
            self.reply(200, {"transfer": "basic", "objects": objects})

        def receive(self, digest: str, body: bytes) -> None:
            if hashlib.sha256(body).hexdigest() != digest:
                raise Refusal(400, "the content does not match its SHA-256")
            hub.store(body, lfs=True)
            self.reply(200)

        def verify(self, body: bytes) -> None:
            wanted = json.loads(body)
            path = hub.root / wanted["oid"]
            if not path.exists() or path.stat().st_size != wanted["size"]:
                raise Refusal(404, "the object was not uploaded")
            self.reply(200, {})

        def receive_commit(self, repo: Repo, branch: str, body: bytes) -> None:
            head = self.commit(repo, branch)
            files = dict(repo.commits[head])
            message = ""
            for line in body.splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "header":
                    message = value["summary"]
                    if value.get("parentCommit") not in (None, head):
                        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
                elif item["key"] == "file":
                    files[value["path"]] = hub.store(base64.b64decode(value["content"]), lfs=False)
                elif item["key"] == "lfsFile":
                    if not (hub.root / value["oid"]).exists():
                        raise Refusal(400, f"{value['path']} was not uploaded")
                    files[value["path"]] = hub.describe(value["oid"], lfs=True)
                elif item["key"] == "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                elif item["key"] == "deletedFolder":
                    files = {path: blob for path, blob in files.items() if not path.startswith(value["path"])}
            oid = repo.commit(branch, files, message)
            url = f"{hub.url}/{PREFIXES[repo.kind]}{repo.repo_id}/commit/{oid}"
            self.reply(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve folders as Hub repositories on the loopback interface.")
    parser.add_argument("--serve", action="append", default=[], metavar="REPO_ID=FOLDER", help="a model")
    parser.add_argument("--serve-dataset", action="append", default=[], metavar="REPO_ID=FOLDER", help="a data set")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, HubServer(root, port=arguments.port) as hub:
        for kind, pairs in (("model", arguments.serve), ("dataset", arguments.serve_dataset)):
            for pair in pairs:
                repo_id, separator, folder = pair.partition("=")
                if not separator or repo_id.count("/") != 1 or not Path(folder).is_dir():
                    parser.error(f"{pair!r} is not OWNER/NAME=FOLDER with a folder that exists")
                hub.add_repo(repo_id, folder, repo_type=kind)
        for name, value in (hub.variables() | {"HF_TOKEN": hub.token}).items():
            print(f"export {name}={value}")
        print("# Serving; Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
