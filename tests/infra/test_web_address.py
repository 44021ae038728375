"""Addresses that people give: what is refused in one line, what is hidden, and which are on this machine."""

import os
from pathlib import Path

import pytest

from infra import web_address
from infra.web_address import AddressError, is_this_machine, parse, proxy_for, redact, use_no_proxy_for_this_machine


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_address, "_secrets", set())
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("given", "url", "host", "header"),
    [
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", "127.0.0.1", "127.0.0.1:8000"),
        ("HTTPS://LLM.Example/tenant//", "https://llm.example/tenant", "llm.example", "llm.example"),
        ("http://[::1]:8000", "http://[::1]:8000", "::1", "[::1]:8000"),
        ("http://user:pw@a.example:80", "http://a.example:80", "a.example", "a.example"),
        (
            "https://bücher.example/ä",
            "https://xn--bcher-kva.example/%C3%A4",
            "xn--bcher-kva.example",
            "xn--bcher-kva.example",
        ),
    ],
)
def test_an_address_is_read(given: str, url: str, host: str, header: str) -> None:
    address = parse(given)
    assert (address.url, address.host, address.host_header) == (url, host, header)


@pytest.mark.parametrize(
    "given",
    [
        "http://127.0.0.1:99999", "http://127.0.0.1:abc", "http://127.0.0.1:-1", "http://127.0.0.1:0", "http://[::1",
        "http://[::1]]:80", "http://", "http:///path", "http://a b", "ftp://a.example", "a.example", "", "http://a?key=1",
        "http://a#b", "http://" + "a" * 70 + ".example", "http://ä" + "a" * 70, "http://a\\b", "http://%00",
    ],
)  # fmt: skip
def test_what_is_not_an_address_is_one_line(given: str) -> None:
    if given.startswith("http://aaaa"):  # a name that DNS refuses, but a URL
        parse(given)
        return
    with pytest.raises(AddressError) as refused:
        parse(given)
    assert "\n" not in str(refused.value)
    assert "set " in str(refused.value)


@pytest.mark.parametrize(
    "userinfo",
    [
        "user:s3cret-word",
        "user:s3c%72et-word",
        "s3cret-word",
        "user:s3cret-word@x",
        "user:s3cret-word/x",
        "u:s3cret-word?",
    ],
)
def test_a_password_is_in_no_message_and_no_repr(userinfo: str) -> None:
    for place in ("a.example", "a.example:99999", "[::1", "", "a.example?x=1"):
        try:
            shown = repr(parse(f"http://{userinfo}@{place}")) + parse(f"http://{userinfo}@{place}").url
        except AddressError as error:
            shown = str(error)
        assert "s3c" not in shown, shown


def test_the_user_name_and_password_are_decoded() -> None:
    assert parse("http://us%40er:p%3Aw@a").authorization == "Basic dXNAZXI6cDp3"
    assert parse("http://token@a").authorization == "Basic dG9rZW46"


def test_redaction_hides_userinfo_and_nothing_else() -> None:
    assert redact("see http://u:p@h:1/x and s3://u@b") == "see http://***@h:1/x and s3://***@b"
    for text in (
        "peer http://host:9 refused mail from a@b", "http://host/@user", "user@host:path", "http://host?q=a@b", "a @ b",
        '{"url": "http://host", "mail": "a@b"}',
    ):  # fmt: skip
        assert redact(text) == text


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "127.1", "2130706433", "0x7f.1", "::1", "[::1]", "::ffff:127.0.0.1", "localhost",
             "LocalHost.", "api.localhost", "0.0.0.0"]
)  # fmt: skip
def test_this_machine_is_recognized(host: str) -> None:
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "localhost.example", "notlocalhost", "128.0.0.1", "::2", "127.0.0.1.nip.io", "", "7"]
)
def test_other_machines_are_not_this_one(host: str) -> None:
    assert not is_this_machine(host)


def test_the_proxy_of_the_environment_is_used_for_other_machines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:pr0xy-word@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "direct.example,.internal")
    proxy = proxy_for(parse("http://llm.example"))
    assert proxy is not None
    assert (proxy.url, proxy.authorization[:6]) == ("http://proxy.example:3128", "Basic ")
    for direct in (
        "http://direct.example:8000",
        "http://a.internal",
        "http://127.0.0.9:1",
        "http://[::1]",
        "http://x.localhost",
    ):
        assert proxy_for(parse(direct)) is None, direct
    assert proxy_for(parse("https://llm.example")) is None
    monkeypatch.setenv("all_proxy", "proxy.example:1080")
    assert getattr(proxy_for(parse("https://llm.example")), "url", "") == "http://proxy.example:1080"
    monkeypatch.setenv("http_proxy", "socks5://user:pr0xy-word@proxy.example")
    with pytest.raises(AddressError, match=r"http_proxy: .*is not a URL") as refused:
        proxy_for(parse("http://llm.example"))
    assert "pr0xy" not in str(refused.value)


def test_a_custom_endpoint_on_this_machine_is_excepted_from_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    use_no_proxy_for_this_machine()
    assert "NO_PROXY" not in os.environ, "without a proxy nothing is to be set"
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "a.example")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.66:9000")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    use_no_proxy_for_this_machine("http://api.localhost:80")
    names = os.environ["NO_PROXY"].split(",")
    assert names[0] == "a.example"
    assert {"localhost", "127.0.0.1", "::1", "127.0.0.66", "api.localhost"} <= set(names)
    assert "hub.example" not in names
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]


def test_no_program_reads_a_module_of_a_package_that_make_local_has_not_installed_yet() -> None:
    """These are imported by the system's Python, before anything is installed."""
    for name in ("web_address", "terminal"):
        source = (Path(web_address.__file__).parent / f"{name}.py").read_text()
        assert "httpx" not in source
        assert "pydantic" not in source
