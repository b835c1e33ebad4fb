"""A stand-in for the Hugging Face Hub: the requests that huggingface_hub makes, in memory.

Files are stored with Git LFS if they are .safetensors, as there.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = 'hf_of_the_owner'


def commit_of(files):
    sums = sorted((name, _sha256(content)) for name, content in files.items())
    return hashlib.sha1(repr(sums).encode()).hexdigest()


class Hub:
    """Repositories by name, each with its files by branch or commit; private ones need TOKEN."""

    def __init__(self):
        self.repos, self.private, self.uploaded, self.requests = {}, set(), {}, []

    def add(self, repo, files, *, private=False):
        commits = self.repos.setdefault(repo, {})
        commits['main'] = commits[commit_of(files)] = files
        if private:
            self.private.add(repo)
        return commit_of(files)

    def answer(self, method, path, body, token):
        """The status, the headers and the content (bytes, or JSON) of an answer."""
        self.requests.append(f'{method} {path}')
        for pattern, handle in _ROUTES:
            match = re.fullmatch(pattern, f'{method} {path}')
            if match:
                names = match.groupdict()
                repo = names.get('repo')
                closed = repo in self.private or method == 'POST'
                if repo is not None and closed and token != TOKEN:
                    return 401, {}, {'error': 'Invalid username or password.'}
                if repo is not None and repo not in self.repos:
                    return (404 if token else 401), {'X-Error-Code': 'RepoNotFound'}, {}
                if 'commit' in names and names['commit'] not in self.repos[repo]:
                    return 404, {'X-Error-Code': 'RevisionNotFound'}, {}
                return handle(self, names, body, token)
        return 404, {}, {'error': f'unexpected {method} {path}'}

    def _info(self, names, body, token):
        repo = names['repo']
        files = self.repos[repo][names.get('commit', 'main')]
        private = repo in self.private
        content = {'id': repo, 'sha': commit_of(files), 'private': private, 'siblings': []}
        return 200, {}, content

    def _tree(self, names, body, token):
        return (
            200,
            {},
            [
                {
                    'type': 'file',
                    'path': path,
                    'size': len(content),
                    'oid': hashlib.sha1(content).hexdigest(),
                    **(
                        {'lfs': {'oid': _sha256(content), 'size': len(content), 'pointerSize': 130}}
                        if path.endswith('.safetensors')
                        else {}
                    ),
                }
                for path, content in self.repos[names['repo']][names['commit']].items()
            ],
        )

    def _file(self, names, body, token):
        files = self.repos[names['repo']][names['commit']]
        if names['path'] not in files:
            return 404, {'X-Error-Code': 'EntryNotFound'}, {}
        content = files[names['path']]
        lfs = names['path'].endswith('.safetensors')
        etag = _sha256(content) if lfs else hashlib.sha1(content).hexdigest()
        return 200, {'X-Repo-Commit': commit_of(files), 'ETag': f'"{etag}"'}, content

    def _create(self, names, body, token):
        if token != TOKEN:
            return 401, {}, {'error': 'Invalid username or password.'}
        wanted = json.loads(body)
        repo = f'{wanted["organization"]}/{wanted["name"]}'
        if repo in self.repos:
            return 409, {}, {'error': 'It exists.', 'url': f'{self.address}/{repo}'}
        self.add(repo, {}, private='private' in (wanted.get('visibility'), *wanted))
        return 200, {}, {'url': f'{self.address}/{repo}', 'name': repo}

    def _validate(self, names, body, token):
        content = json.loads(body)['content']
        return (200, {}, {}) if content.startswith('---\n') else (400, {}, {'errors': []})

    def _preupload(self, names, body, token):
        return (
            200,
            {},
            {
                'files': [
                    {
                        'path': file['path'],
                        'uploadMode': 'lfs' if file['path'].endswith('.safetensors') else 'regular',
                        'shouldIgnore': False,
                    }
                    for file in json.loads(body)['files']
                ]
            },
        )

    def _batch(self, names, body, token):
        return (
            200,
            {},
            {
                'transfer': 'basic',
                'objects': [
                    {**item, 'actions': {'upload': {'href': f'{self.address}/put/{item["oid"]}'}}}
                    for item in json.loads(body)['objects']
                ],
            },
        )

    def _put(self, names, body, token):
        assert _sha256(body) == names['oid']
        self.uploaded[names['oid']] = body
        return 200, {}, {}

    def _commit(self, names, body, token):
        files = dict(self.repos[names['repo']]['main'])
        for line in map(json.loads, body.splitlines()):
            value = line['value']
            if line['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif line['key'] == 'lfsFile':
                files[value['path']] = self.uploaded[value['oid']]
        commit = self.add(names['repo'], files)
        url = f'{self.address}/{names["repo"]}/commit/{commit}'
        return 200, {}, {'commitUrl': url, 'commitOid': commit}


_REPO = r'(?P<repo>[\w.-]+/[\w.-]+)'
_ROUTES = (
    (rf'GET /api/models/{_REPO}', Hub._info),
    (rf'GET /api/models/{_REPO}/revision/(?P<commit>[^/]+)', Hub._info),
    (rf'GET /api/models/{_REPO}/tree/(?P<commit>[^/]+)', Hub._tree),
    (rf'(GET|HEAD) /{_REPO}/resolve/(?P<commit>[^/]+)/(?P<path>.+)', Hub._file),
    (r'POST /api/repos/create', Hub._create),
    (r'POST /api/validate-yaml', Hub._validate),
    (rf'POST /api/models/{_REPO}/preupload/main', Hub._preupload),
    (rf'POST /{_REPO}\.git/info/lfs/objects/batch', Hub._batch),
    (r'PUT /put/(?P<oid>\w+)', Hub._put),
    (rf'POST /api/models/{_REPO}/commit/main', Hub._commit),
)


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serve(hub):
    """Serves the repositories of `hub` at `hub.address`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
            token = (self.headers.get('Authorization') or '').removeprefix('Bearer ')
            path = unquote(urlsplit(self.path).path)
            status, headers, content = hub.answer(self.command, path, body, token)
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, 'Content-Length': len(content)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != 'HEAD':
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        hub.address = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty stand-in that huggingface_hub takes for the Hub, with an empty cache."""
    from huggingface_hub import close_session, constants

    with serve(Hub()) as server:
        monkeypatch.setattr(constants, 'ENDPOINT', server.address)
        files = f'{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', files)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
        monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path / 'token'))
        monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)  # which has a server of its own
        monkeypatch.delenv('HF_TOKEN', raising=False)
        monkeypatch.setenv('HF_HUB_DISABLE_PROGRESS_BARS', '1')
        server.cache = tmp_path / 'cache'
        yield server
        close_session()
