from __future__ import annotations

import pytest

from nodebits.core.errors import ConfigError
from nodebits.serving.settings import TOKEN_VARIABLE, Serving

LONG = "0123456789abcdef"


def test_other_machines_need_a_token(monkeypatch, tmp_path):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert Serving(host=host).token() is None
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""):
        with pytest.raises(ConfigError, match="needs a token"):
            Serving(host=host).token()
    monkeypatch.setenv(TOKEN_VARIABLE, LONG)
    assert Serving(host="0.0.0.0").token() == LONG == Serving().token()
    file = tmp_path / "token"
    file.write_text(LONG + "x\n")
    assert Serving(token_file=file).token() == LONG + "x"


@pytest.mark.parametrize("token", ["", "short", LONG + "\n" + LONG, LONG + "é"])
def test_a_token_that_is_none(token, monkeypatch, tmp_path):
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(ConfigError, match="printable ASCII, 16 characters"):
        Serving().token()
    with pytest.raises(ConfigError, match="cannot be read"):
        Serving(token_file=tmp_path / "none").token()


@pytest.mark.parametrize(
    "wrong", [{"queue": 0}, {"timeout": 0}, {"port": 65_536}, {"watch": -1}, {"max_body": 1.5}]
)
def test_limits_that_are_none(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Serving(**wrong)
