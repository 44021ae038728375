"""The Hub's bad days: a table of faults against the fetch, with waits that take no time."""

import email.utils
import gzip
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.hub_faults import COMMIT, CONTENT, CONTENTS, FILE, HUB, LISTING, MODEL, Fault, faulty_hub, siblings
from image.engine import blobs, hub
from image.engine.arguments import EngineError
from image.engine.hub import Hub
from image.engine.weights import Repository, Weights, cache_folder, ensure

SIZE = len(CONTENTS[FILE])
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 262144\n"
WRONG = bytes(SIZE)


@dataclass(frozen=True)
class Row:
    """A fault and what follows: the seconds waited, the bytes received beyond the file's, and the message if it fails."""

    fault: Fault
    waited: float = 0.0
    twice: int = 0
    message: str = ""


FOREVER = 10**6
ROWS = {
    "listing 503 once": Row(Fault(LISTING, 503), 0.5),
    "listing 502 three times": Row(Fault(LISTING, 502, times=3), 0.5 + 1 + 2),
    "listing 429 asks for 15 s": Row(Fault(LISTING, 429, {"Retry-After": "15"}), 15),
    "listing 429 asks five times": Row(Fault(LISTING, 429, {"Retry-After": "15"}, times=5), 75),
    "listing 429 asks for 40 s by the Hub's own header": Row(Fault(LISTING, 429, {"RateLimit": '"api";r=0;t=40'}), 40),
    "listing 503 asks for an hour": Row(
        Fault(LISTING, 503, {"Retry-After": "3600"}), 0, 0, "answered 503 .* it asks to wait 3600 s, and this start waits for at most 1200"
    ),
    "listing 429 for ever": Row(Fault(LISTING, 429, {"Retry-After": "300"}, times=FOREVER), 1200, 0, "answered 429 .* it asks to wait 300 s"),
    "listing 500 for ever": Row(Fault(LISTING, 500, times=FOREVER), 61.5, 0, "answered 500 for acme/tiny; try again later"),
    "listing closes the connection": Row(Fault(LISTING, 0), 0.5),
    "listing is a login page": Row(Fault(LISTING, 200, body=b"<html>", times=FOREVER), 1.5, 0, "unexpected response; check HF_ENDPOINT"),
    "listing is cut": Row(Fault(LISTING, 200, cut=40), 0.5),
    "repository was renamed": Row(Fault(LISTING, 307, {"Location": "/api/models/acme/new/revision/main?blobs=true"})),
    "repository is private": Row(Fault(LISTING, 401, {"X-Error-Code": "RepoNotFound"}, times=FOREVER), 0, 0, "was not found on the Hub, or it is private"),
    "repository is disabled": Row(Fault(LISTING, 403, {"X-Error-Code": "RepoNotFound"}, times=FOREVER), 0, 0, "was not found on the Hub"),
    "revision does not exist": Row(Fault(LISTING, 404, {"X-Error-Code": "RevisionNotFound"}, times=FOREVER), 0, 0, "has no revision main"),
    "file is gated": Row(Fault(HUB, 403, {"X-Error-Code": "GatedRepo"}, times=FOREVER), 0, 0, "is gated, and no token is set"),
    "file 429 asks for 15 s": Row(Fault(HUB, 429, {"Retry-After": "15"}), 15),
    "file 504 once": Row(Fault(HUB, 504), 0.5),
    "content host 403, address expired": Row(Fault(CONTENT, 403), 0.5),
    "content host 400, clock skew": Row(Fault(CONTENT, 400), 0.5),
    "content host 401 with a stale token": Row(Fault(CONTENT, 401), 0.5),
    "content host 403 for ever": Row(
        Fault(CONTENT, 403, times=FOREVER), 61.5, 0, r"127.0.0.1:\d+, to which .* redirects for acme/tiny, answered 403; allow this host"
    ),
    "content host 503 asks for 20 s": Row(Fault(CONTENT, 503, {"Retry-After": "20"}), 20),
    "content is cut": Row(Fault(CONTENT, cut=100_000), 0.5),
    "content is cut three times": Row(Fault(CONTENT, cut=50_000, times=3), 1.5),
    "content is cut, and ranges are ignored": Row(Fault(CONTENT, cut=100_000, ignores_range=True, times=2), 1.5, 100_000),
    "content without a length": Row(Fault(CONTENT, headers={"Content-Length": None})),
    "content without a length is cut": Row(Fault(CONTENT, headers={"Content-Length": None}, cut=100_000), 0.5),
    "content is a pointer": Row(Fault(CONTENT, body=POINTER, times=FOREVER), 1.5, 0, "the server sends another file .* a mirror serves pointers"),
    "content is a pointer once": Row(Fault(CONTENT, body=POINTER), 0.5, len(POINTER)),
    "content is an error page with status 200": Row(Fault(CONTENT, body=b"<html>busy</html>"), 0.5, 17),
    "content is wrong once": Row(Fault(CONTENT, body=WRONG), 0, SIZE),
    "content is wrong": Row(Fault(CONTENT, body=WRONG, times=FOREVER), 0, 2 * SIZE, "arrived twice with a hash that differs"),
    "content is longer than it should be": Row(Fault(CONTENT, body=CONTENTS[FILE] + b"more", headers={"Content-Length": None}), 0, SIZE + 4),
    "content is compressed against the request": Row(
        Fault(CONTENT, body=gzip.compress(WRONG), headers={"Content-Encoding": "gzip"}, times=FOREVER), 1.5, 0, "arrives compressed .gzip., although that was not requested; a proxy"
    ),
    "content closes the connection": Row(Fault(CONTENT, 0), 0.5),
    "range is refused": Row(Fault(CONTENT, 416), 0.5),
    "range is refused for ever": Row(Fault(CONTENT, 416, times=FOREVER), 61.5, 0, "answered 416"),
}  # fmt: skip


def fetched(home: Path, address: str, told: list[str] | None = None, **more: float) -> Weights:
    tell = (told if told is not None else []).append
    return ensure(Repository(MODEL), home / "hub", Hub({"HF_ENDPOINT": address}), tell, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ROWS)
def test_the_hubs_bad_days(tmp_path: Path, no_waiting: list[float], row: str) -> None:
    expected, told = ROWS[row], list[str]()
    with faulty_hub(expected.fault) as found:
        if expected.message:
            with pytest.raises(EngineError, match=expected.message) as raised:
                fetched(tmp_path, found.address, told)
            assert "\n" not in str(raised.value)
            assert not list(tmp_path.rglob("whole/*.json"))
            found.left = 0
            no_waiting_before = sum(no_waiting)
            assert no_waiting_before == pytest.approx(expected.waited, abs=0.01)
            fetched(tmp_path, found.address)
            assert sum(no_waiting) == no_waiting_before
        else:
            weights = fetched(tmp_path, found.address, told)
            assert weights.commit == COMMIT
            assert (weights.folder / FILE).read_bytes() == CONTENTS[FILE]
            assert sum(no_waiting) == pytest.approx(expected.waited, abs=0.01)
            assert found.sent - sum(len(content) for content in CONTENTS.values()) == expected.twice
            if expected.waited >= 15:
                assert "waiting" in "".join(told)
                assert "as it asks" in "".join(told)


@pytest.mark.parametrize("status", [400, 403, 416])
def test_a_content_host_that_refuses_ranges_sends_the_whole_file(
    tmp_path: Path, no_waiting: list[float], status: int
) -> None:
    with faulty_hub(Fault(CONTENT, status, times=FOREVER, of_ranges=True)) as found:
        blob = tmp_path / "hub/models--acme--tiny/blobs" / siblings()[1]["lfs"]["sha256"]
        blob.parent.mkdir(parents=True)
        blob.with_name(f"{blob.name}.part").write_bytes(CONTENTS[FILE][:1000])
        assert (fetched(tmp_path, found.address).folder / FILE).read_bytes() == CONTENTS[FILE]
    assert sum(no_waiting) < 5


def test_a_date_says_when_to_retry(tmp_path: Path, no_waiting: list[float]) -> None:
    later = email.utils.formatdate(time.time() + 60, usegmt=True)
    with faulty_hub(Fault(LISTING, 503, {"Retry-After": later})) as found:
        fetched(tmp_path, found.address)
    assert 50 < sum(no_waiting) <= 60


def test_the_starts_limit_bounds_the_waits(tmp_path: Path, no_waiting: list[float]) -> None:
    limit = pytest.raises(EngineError, match="it asks to wait 15 s, and this start waits for at most 40")
    with faulty_hub(Fault(LISTING, 429, {"Retry-After": "15"}, times=FOREVER)) as found, limit:
        fetched(tmp_path, found.address, limit_seconds=40.0)
    assert sum(no_waiting) == 30


def test_a_connection_that_stalls_is_opened_again(
    tmp_path: Path, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.05)
    with faulty_hub(Fault(CONTENT, headers={"Content-Length": str(SIZE)}, body=CONTENTS[FILE][:1000])) as found:
        weights = fetched(tmp_path, found.address)
        assert (weights.folder / FILE).read_bytes() == CONTENTS[FILE]
        assert found.requests.count(CONTENT) == 2


def test_a_connection_that_drips_is_opened_again(
    tmp_path: Path, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "SLOW_SECONDS", -1.0)
    monkeypatch.setattr(blobs, "BLOCK", 100_000)
    monkeypatch.setattr(blobs, "SLOW_BYTES", 200_000)
    with faulty_hub() as found:
        assert (fetched(tmp_path, found.address).folder / FILE).read_bytes() == CONTENTS[FILE]
        assert found.requests.count(CONTENT) > 1


@pytest.mark.parametrize("name", ["assets/loss..png", "..hidden", "a b/ü.json", "-x.json", "a..b/c.json"])
def test_odd_names_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(CONTENTS, name.rpartition("/")[2], b"odd")
    odd = {"rfilename": name, "size": 3, "blobId": "27a0c0e1ac3fe2f9e9a4e18a1ba8ad0a04d8a4f5"}
    assert hub._file(odd).name == name


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", "./x", ""])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        hub._file(siblings()[0] | {"rfilename": name})


def test_names_of_old_are_understood(tmp_path: Path) -> None:
    home = Path.home()
    assert cache_folder({}) == home / ".cache/huggingface/hub"
    assert cache_folder({"HF_HOME": "/h"}) == Path("/h/hub")
    assert cache_folder({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}) == Path("/c")
    assert cache_folder({"HUGGINGFACE_HUB_CACHE": "/c"}) == Path("/c")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/huggingface/hub")
    (tmp_path / "token").write_text("hf_file\n")
    for environment, token in (
        ({"HF_TOKEN": "hf_1", "HUGGING_FACE_HUB_TOKEN": "hf_2"}, "hf_1"),
        ({"HF_TOKEN": " ", "HUGGING_FACE_HUB_TOKEN": "hf_2"}, "hf_2"),
        ({"HF_HOME": str(tmp_path)}, "hf_file"),
        ({"HF_TOKEN_PATH": str(tmp_path / "token")}, "hf_file"),
        ({}, ""),
    ):
        assert Hub(environment)._token == token
