"""Local and remote URLs, public and private addresses."""

from pathlib import Path

import pytest

from headstart.fetch.http import addresses


@pytest.mark.parametrize(
    ("url", "remote", "path"),
    [
        ("http://h/a.png", True, None),
        ("HTTPS://h/a.png", True, None),
        ("file:///data/a%20b.png", False, "/data/a b.png"),
        ("data/a%20b.png", False, "data/a%20b.png"),
        ("/data/a.png", False, "/data/a.png"),
    ],
)
def test_remote_and_local_urls(url: str, remote: bool, path: str | None) -> None:
    assert addresses.is_remote(url) is remote
    assert path is None or addresses.local_path(url) == Path(path)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2a00:1450:4001::8a", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_private_addresses(address: str, public: bool) -> None:
    assert addresses.is_public(address) is public
