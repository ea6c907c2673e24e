"""Where a page view came from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics.traffic import UTM, Arrival, arrival, host_of, path_of, query_of

CHANNELS = frozenset([
    "direct", "organic_search", "paid_search", "organic_social", "paid_social", "email", "referral", "affiliate",
    "display", "ai_assistant", "other",
])  # fmt: skip


@pytest.mark.parametrize(
    ("query", "referrer", "channel"),
    [
        ("", None, "direct"),
        ("page=2&sort=name", None, "direct"),
        ("", "https://shop.example/cart", "direct"),
        ("", "https://www.shop.example/cart", "direct"),
        ("", "https://blog.example/post", "referral"),
        ("", "https://www.google.com/", "organic_search"),
        ("", "https://www.google.co.uk/", "organic_search"),
        ("", "https://google.com.example.org/", "referral"),
        ("", "https://notgoogle.com/", "referral"),
        ("", "https://duckduckgo.com/", "organic_search"),
        ("", "https://m.facebook.com/", "organic_social"),
        ("", "https://t.co/abc", "organic_social"),
        ("", "https://news.ycombinator.com/item?id=1", "organic_social"),
        ("", "https://chatgpt.com/", "ai_assistant"),
        ("", "https://gemini.google.com/app", "ai_assistant"),
        ("", "https://www.perplexity.ai/search", "ai_assistant"),
        ("utm_source=chatgpt.com", None, "ai_assistant"),
        ("", "https://mail.google.com/", "email"),
        ("gclid=abc", "https://www.google.com/", "paid_search"),
        ("msclkid=abc", None, "paid_search"),
        ("ttclid=abc", None, "paid_social"),
        ("fbclid=abc", "https://l.facebook.com/", "organic_social"),
        ("utm_source=google&utm_medium=cpc", None, "paid_search"),
        ("utm_source=facebook&utm_medium=paid_social", None, "paid_social"),
        ("utm_source=somewhere&utm_medium=ppc", None, "other"),
        ("utm_source=newsletter&utm_medium=Email", None, "email"),
        ("utm_source=newsletter", None, "email"),
        ("utm_source=x&utm_medium=social", None, "organic_social"),
        ("utm_medium=affiliate&utm_source=bob", "https://bob.example/", "affiliate"),
        ("utm_medium=banner&utm_source=site", None, "display"),
        ("utm_medium=cpm", None, "display"),
        ("utm_campaign=spring", None, "other"),
        ("utm_medium=referral&utm_source=bob", None, "referral"),
        ("", "android-app://com.google.android.gm/", "email"),
    ],
)
def test_the_channel(query: str, referrer: str | None, channel: str) -> None:
    assert arrival(query, referrer, "shop.example").channel == channel


def test_only_the_five_fields_are_kept_of_a_query() -> None:
    query = "UTM_Source=News&utm_campaign=Spring+Sale&utm_term=&token=secret&utm_medium=email&utm_id=7&utm_campaign=no"
    assert arrival(query, None, None) == Arrival(
        None, "email", {"utm_source": "news", "utm_medium": "email", "utm_campaign": "Spring Sale"}
    )


def test_long_values_and_many_fields_are_cut() -> None:
    assert len(arrival("utm_source=" + "a" * 1000, None, None).utm["utm_source"]) == 200
    assert arrival("&".join(f"a{n}=1" for n in range(200)) + "&utm_source=x", None, None).utm == {}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (None, None),
        ("", None),
        ("https://Blog.Example:8443/x?y", "blog.example"),
        ("https://user:secret@blog.example/", "blog.example"),
        ("javascript:alert(1)", None),
        ("about:blank", None),
        ("http://[::1]/x", "::1"),
        ("http://[", None),
        ("/path", None),
        ("https://" + "a" * 300, None),
        ("https://bücher.example/", None),
        ("https://a b/", None),
    ],
)
def test_the_host_of_a_referrer(url: str | None, host: str | None) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("/a/b?c=d#e", "/a/b", "c=d"),
        ("https://shop.example/a?b", "/a", "b"),
        ("https://shop.example", "/", ""),
        ("//shop.example/a", "/a", ""),
        ("", "/", ""),
        ("?a=b", "/", "a=b"),
        ("/a#b?c", "/a", ""),
    ],
)
def test_path_and_query_of_a_url(url: str, path: str, query: str) -> None:
    assert (path_of(url), query_of(url)) == (path, query)


@given(st.text(), st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
def test_no_text_breaks_it(query: str, referrer: str | None, own: str | None) -> None:
    found = arrival(query, referrer, own)
    assert found.channel in CHANNELS
    assert set(found.utm) <= set(UTM)
    path_of(query)
