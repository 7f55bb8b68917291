"""Paths with more than one reading, and where signing in leads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.login.paths import PathRefused, local_target, plain_path


@pytest.mark.parametrize(
    "raw",
    [
        "//dagster/graphql",
        "/dagster//graphql",
        "/dagster/./graphql",
        "/dagster/../mlflow",
        "/dagster/%2e%2e/mlflow",
        "/dagster/.%2E/mlflow",
        "/dagster%2fgraphql",
        "/dagster/%2fgraphql",
        "/dagster/%5cgraphql",
        "/dagster/\\graphql",
        "/dagster/graphql%00",
        "/dagster/graphql%0d%0aHost:x",
        "/dagster/%252e%252e/mlflow",
        "/dagster/%25%32%66",
        "/dagster/%ff",
        "/dagster/%c0%ae%c0%ae/",
        "/dagster/%",
        "/dagster/%zz",
        "dagster",
        "http://evil.example/dagster",
        "/dagster/a b",
        "/" + "a" * 10_000,
        "",
    ],
)
def test_a_path_with_more_than_one_reading_is_refused(raw):
    with pytest.raises(PathRefused):
        plain_path(raw)


@pytest.mark.parametrize("raw", ["/", "/dagster/", "/a.b/..c/d..", "/a;b=c/d", "/%C3%BC", "/locations/a@b/jobs/c~d"])
def test_ordinary_paths_are_read(raw):
    plain_path(raw)


@given(st.text(max_size=40))
def test_whatever_is_read_has_one_spelling(text):
    """Read again, a decoded path is what it is: no layer of encoding is left, and no segment leads elsewhere."""
    try:
        path = plain_path("/" + text)
    except PathRefused:
        return
    assert not {".", ".."} & set(path.split("/"))
    assert "//" not in path
    assert "\\" not in path


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example",
        "/%2fevil.example/..",
        "javascript:alert(1)", "data:text/html,x", " //evil.example", "/\t/evil.example", "/\n/evil.example",
        "evil.example",
        "http:evil.example", "/-/login", "/-/oidc/start", "/..//evil.example", "/a\r\nSet-Cookie: a=b", "", None,
        "/" * 9000,
    ],
)  # fmt: skip
def test_signing_in_leads_to_this_server_alone(target):
    assert local_target(target) == "/"


@given(st.text(alphabet="/\\.:@#?%ehvilhttps \t\n", max_size=30))
def test_whatever_leads_on_is_a_path_here(text):
    from urllib.parse import urljoin, urlsplit

    target = local_target(text)
    assert urlsplit(urljoin("https://ml.example.com/-/login", target)).netloc == "ml.example.com"
