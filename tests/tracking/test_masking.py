import pytest

from headstart.tracking.masking import mask_addresses, mask_message

ADDRESSES = [
    "http://user:pass@word@host:5000",
    "https://user:pa/ss@wo?rd@host/mlflow",
    "postgresql://user:pass%40word@host/db",
    "http://tokentoken@host",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_part_of_a_password_is_left_of_an_address(address: str) -> None:
    message = mask_message(f"API request to {address}/api failed; retry {address}", [address])
    for piece in ("pass", "word", "pa/ss", "wo?rd", "tokentoken", "%40"):
        assert piece not in message
    assert message.count("//…@host") == 2


def test_parts_that_a_library_took_for_the_host_are_masked() -> None:
    known = ["http://user:pass@word@host:5000"]
    assert mask_message('could not translate host name "word@host"', known) == 'could not translate host name "…@host"'
    assert mask_message("login as pass%40word failed", known) == "login as … failed"
    assert mask_message("see http://user:other@secret@elsewhere/x", known) == "see http://…@elsewhere/x"


def test_what_is_no_password_stays() -> None:
    known = ["sqlite:////home/me@work/mlflow.db", "http://host", "http://u:a@host"]
    text = 'uri: "http://host"\nurl: https://host/photo@2x.jpg, me@example.org, /home/me@work/a'
    assert mask_addresses(text, known) == text


def test_a_file_keeps_its_form() -> None:
    text = 'uri: "http://user:pass@word@host" # a comment\nsources: [https://a:b@host/x.csv]\n'
    assert mask_addresses(text) == 'uri: "http://…@host" # a comment\nsources: [https://…@host/x.csv]\n'
