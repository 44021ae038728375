"""The Hugging Face Hub over plain HTTP: lists a model's files with their hashes, and downloads them from any offset."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from image.engine.arguments import EngineError
from image.engine.patience import HubUnreachableError, retry_after_seconds
from image.engine.weight_files import NoWeightsError, required, select

HUB = "https://huggingface.co"
TIMEOUT_SECONDS = 30.0
_SETTING = "hfToken (pulumi config set --secret hfToken hf_...; HF_TOKEN if you run the container by itself)"


class NoRevisionError(EngineError):
    """The repository has no such branch, tag or commit."""


@dataclass(frozen=True)
class HubFile:
    """One file; ``hash`` is the SHA-256 of a large file, otherwise git's SHA-1."""

    name: str
    size: int
    hash: str


@dataclass(frozen=True)
class Listing:
    """The files of a repository, at one commit, that vLLM needs."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


class TokenRedirect(urllib.request.HTTPRedirectHandler):
    """Sends the token only to the Hub's own host, never to redirect targets."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request that follows a redirect."""
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if new is not None and token and urllib.parse.urlsplit(newurl)[:2] == urllib.parse.urlsplit(req.full_url)[:2]:
            new.add_unredirected_header("Authorization", token)
        return new


def _is_this_container(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    return bool(re.fullmatch(r"(?:.+\.)?localhost|::1|127(?:\.\d+){3}", host))


class Hub:
    """A client of the Hub, which keeps each commit of a branch."""

    keeps_commits = True

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.endpoint = environment.get("HF_ENDPOINT", "").rstrip("/") or HUB
        self._token = _token(environment)
        if not self.endpoint.startswith(("http://", "https://")):
            raise EngineError(f"HF_ENDPOINT: found {self.endpoint!r}; set an http or https URL, or unset it")
        # A proxy would look for a mirror in this container on its own loopback.
        direct = [urllib.request.ProxyHandler({})] if _is_this_container(self.endpoint) else []
        https = urllib.request.HTTPSHandler(context=_certificates())
        self._opener = urllib.request.build_opener(TokenRedirect, https, *direct)

    def listing(self, repository: str, revision: str, mistral: bool | None = None, *, needs: str = "model") -> Listing:
        """The files of a model that vLLM needs.

        Args:
            repository: the Hub id.
            revision: a branch, tag or commit.
            mistral: selects one of two layouts, see `select`.
            needs: see Repository.

        Raises:
            HubUnreachableError: a retry may succeed.
            EngineError: there are no weights that vLLM loads, or the model or revision does not exist, or the token has no access.
        """
        path = f"/api/models/{repository}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"
        with self._open(path, repository, revision) as answer:
            try:
                told = json.load(answer)
                files = [_file(sibling) for sibling in told["siblings"]]
                commit = str(told["sha"])
            except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
                raise HubUnreachableError(
                    f"weights: {self.endpoint} returned an unexpected response; check HF_ENDPOINT", tries=3
                ) from None
        wanted = wanted_files(repository, files, mistral, needs)
        return Listing(repository, commit, tuple(file for file in files if file.name in wanted))

    def open(self, listing: Listing, file: HubFile, start: int) -> http.client.HTTPResponse:
        """A file's bytes; from offset ``start`` if the status is 206, otherwise from the beginning.

        Raises:
            HubUnreachableError: a retry may succeed.
            EngineError: the token has no access, or the file does not exist any more.
        """
        path = f"/{listing.repository}/resolve/{listing.commit}/{urllib.parse.quote(file.name)}"
        return self._open(path, listing.repository, listing.commit, {"Range": f"bytes={start}-"} if start else {})

    def _open(
        self, path: str, repository: str, revision: str, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        # With compression, the size would differ and downloads could not resume.
        request = urllib.request.Request(  # noqa: S310 - http(s), see __init__
            self.endpoint + path,
            headers={"User-Agent": "vllm-endpoint", "Accept-Encoding": "identity", **(headers or {})},
        )
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._elsewhere(error, repository) or self._refusal(error, repository, revision) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise HubUnreachableError(
                f"weights: {self.endpoint} cannot be reached ({reason}); check the network (a NAT gateway?) or HF_ENDPOINT",
                tries=5,
            ) from None
        return answer

    def _elsewhere(self, error: urllib.error.HTTPError, repository: str) -> EngineError | None:
        """A content host's error: its addresses expire, so a new one is requested; access is decided by the Hub alone."""
        host = urllib.parse.urlsplit(error.url or "").netloc
        if host == urllib.parse.urlsplit(self.endpoint).netloc:
            return None
        return HubUnreachableError(
            f"weights: {host}, to which {self.endpoint} redirects for {repository}, answered {error.code}; "
            "allow this host in your proxy or firewall, or try again later",
            retry_after_seconds(error.headers),
            status=error.code,
        )

    def _refusal(self, error: urllib.error.HTTPError, repository: str, revision: str) -> EngineError:
        code, told = error.code, error.headers.get("X-Error-Code", "")
        if told == "GatedRepo" or (code == 403 and told != "RepoNotFound"):
            terms = f"accept its terms at {self.endpoint}/{repository}"
            if self._token:
                return EngineError(f"weights: {repository} is gated, and the token in hfToken has no access; {terms}")
            return EngineError(f"weights: {repository} is gated, and no token is set; {terms}, then set {_SETTING}")
        if code == 401 or told == "RepoNotFound":
            found = "the token in hfToken has no access" if self._token else "it is private and no token is set"
            return EngineError(
                f"weights: {repository} was not found on the Hub, or {found}; check model, or set {_SETTING}"
            )
        if told == "RevisionNotFound":
            return NoRevisionError(
                f"weights: {repository} has no revision {revision}; set modelRevision to an existing one"
            )
        if code == 404:
            return EngineError(
                f"weights: {repository} at {revision} was not found on the Hub; check model and modelRevision"
            )
        return HubUnreachableError(
            f"weights: {self.endpoint} answered {code} for {repository}; try again later",
            retry_after_seconds(error.headers),
            status=code,
        )


def _token(environment: Mapping[str, str]) -> str:
    """The token, by its present and its earlier name, or from the file that ``hf auth login`` writes."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environment.get(name, "").strip():
            return token
    for path in (
        environment.get("HF_TOKEN_PATH"),
        environment.get("HF_HOME", "") and environment["HF_HOME"] + "/token",
    ):
        with contextlib.suppress(OSError, ValueError):
            if path and (token := Path(path).read_text().strip()):
                return token
    return ""


def _file(sibling: Mapping[str, Any]) -> HubFile:
    large = sibling.get("lfs")
    found = large["sha256"] if large else sibling["blobId"]
    file = HubFile(str(sibling["rfilename"]), int(sibling["size"]), str(found))
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.hash) or not {"", ".", ".."}.isdisjoint(
        file.name.split("/")
    ):
        raise ValueError(file.name)  # it would be used as a path
    return file


def wanted_files(
    repository: str, files: Sequence[HubFile], mistral: bool | None = None, needs: str = "model"
) -> set[str]:
    """The names of the files that vLLM needs.

    Raises:
        EngineError: there are no weights that vLLM loads.
    """
    found = select({file.name: file.size for file in files}, mistral=mistral)
    if needs:
        try:
            required(found, repository, adapter=needs == "weights")
        except NoWeightsError as error:
            raise EngineError(str(error)) from None
    return {*found.weights, *found.others}


def _certificates() -> ssl.SSLContext:
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath) and importlib.util.find_spec("certifi"):
        import certifi  # for slim images without system certificates

        return ssl.create_default_context(cafile=certifi.where())
    return ssl.create_default_context()
