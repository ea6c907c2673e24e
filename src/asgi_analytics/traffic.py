"""Where a page view came from: the host that referred to it, the campaign that it belongs to, and the channel.

All of it is derived from a URL and its referrer. Neither is kept: only the fields of `Arrival` are.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

MAX_QUERY = 4_096
"""Characters of a query string that are looked at."""
MAX_REFERRER = 2_048
"""Characters of a referrer that are looked at."""
MAX_VALUE = 200
"""Characters of a campaign's field that are kept."""
MAX_FIELDS = 100
"""Fields of a query string that are looked at."""

UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")

# A host belongs to a name if it is that name, or ends with a dot and it. A name that ends with a dot stands for all its
# national domains: "google." is www.google.com and google.co.uk.
SEARCH = (
    "google.", "bing.com", "duckduckgo.com", "search.yahoo.com", "yahoo.co.jp", "yandex.", "ya.ru", "baidu.com",
    "ecosia.org", "qwant.com", "startpage.com", "search.brave.com", "kagi.com", "naver.com", "sogou.com", "so.com",
    "seznam.cz", "mojeek.com", "swisscows.com", "ask.com", "search.aol.com",
)  # fmt: skip
SOCIAL = (
    "facebook.com", "fb.com", "fb.me", "instagram.com", "t.co", "x.com", "twitter.com", "linkedin.com", "lnkd.in",
    "reddit.com", "pinterest.", "youtube.com", "youtu.be", "tiktok.com", "vk.com", "weibo.com", "threads.net",
    "threads.com", "bsky.app", "mastodon.social", "news.ycombinator.com", "lobste.rs", "quora.com", "tumblr.com",
    "snapchat.com", "discord.com", "telegram.org", "t.me", "web.whatsapp.com", "xing.com",
)  # fmt: skip
ASSISTANTS = (
    "chatgpt.com", "chat.openai.com", "openai.com", "perplexity.ai", "claude.ai", "gemini.google.com",
    "bard.google.com", "copilot.microsoft.com", "chat.mistral.ai", "chat.deepseek.com", "grok.com", "you.com",
    "poe.com", "phind.com", "meta.ai",
)  # fmt: skip
MAIL = (
    "mail.google.com", "outlook.live.com", "outlook.office.com", "outlook.office365.com", "mail.yahoo.com",
    "mail.proton.me", "app.fastmail.com", "com.google.android.gm",
)  # fmt: skip

SEARCH_NAMES = frozenset([
    "google", "bing", "duckduckgo", "yahoo", "yandex", "baidu", "ecosia", "qwant", "startpage", "brave", "kagi",
    "naver",
])  # fmt: skip
SOCIAL_NAMES = frozenset([
    "facebook", "fb", "instagram", "ig", "twitter", "x", "linkedin", "reddit", "pinterest", "youtube", "tiktok", "vk",
    "threads", "bluesky", "mastodon",
])  # fmt: skip
ASSISTANT_NAMES = frozenset([
    "chatgpt", "openai", "perplexity", "claude", "gemini", "copilot", "mistral", "deepseek", "grok",
])  # fmt: skip

_PAID = re.compile(r"^(.*[-_ ])?(cp[a-z]|ppc|paid|paid.*|retargeting|sem)$")
_DISPLAY = frozenset(["display", "banner", "expandable", "interstitial", "cpm", "programmatic"])
_MAIL_MEDIUM = frozenset(["email", "e-mail", "e_mail", "mail", "newsletter"])
_SOCIAL_MEDIUM = frozenset(["social", "social-network", "social-media", "social_network", "social_media", "sm"])
_AFFILIATE_MEDIUM = frozenset(["affiliate", "affiliates", "partner"])
_SEARCH_CLICKS = frozenset(["gclid", "gbraid", "wbraid", "msclkid", "yclid"])
"""Fields that search engines add to the address of who clicked on an advertisement."""
_SOCIAL_CLICKS = frozenset(["ttclid", "li_fat_id", "twclid"])
"""The same of social networks; not ``fbclid``, which Facebook adds to every link."""

_HOST = re.compile(r"[a-z0-9._:\[\]-]{1,253}")


class Arrival(NamedTuple):
    """Where a page view came from. What is not known is None."""

    referrer: str | None
    """The host of the page that led here, unless it is the application's own."""
    channel: str
    """direct, organic_search, paid_search, organic_social, paid_social, email, referral, affiliate, display,
    ai_assistant or other."""
    utm: dict[str, str]
    """Those of the five fields of a campaign that were there, in lower case but for campaign, content and term."""


def arrival(query: str, referrer: str | None, own_host: str | None) -> Arrival:
    """Return where a page view came from, by its query string, its referrer (a URL) and the application's host."""
    fields = _fields(query)
    utm = {name: fields[name] for name in UTM if name in fields}
    for name in ("utm_source", "utm_medium"):
        if name in utm:
            utm[name] = utm[name].lower()
    host = host_of(referrer)
    if host is not None and own_host is not None and _bare(host) == _bare(own_host):
        host = None
    return Arrival(host, _channel(host, utm, fields), utm)


def host_of(url: str | None) -> str | None:
    """Return the host of a URL in lower case, without its port; None where it has none that could be one."""
    if not url:
        return None
    try:
        parts = urlsplit(url[:MAX_REFERRER])
        host = parts.hostname
    except ValueError:
        return None
    if not host or parts.scheme not in ("http", "https", "android-app"):
        return None
    return host if _HOST.fullmatch(host) else None


def path_of(url: str) -> str:
    """Return the path of a URL, or of a path, without its query and fragment."""
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    if "://" in path or path.startswith("//"):
        path = path.partition("//")[2]
        path = path[path.find("/") :] if "/" in path else "/"
    return path or "/"


def query_of(url: str) -> str:
    """Return the query string of a URL."""
    return url.partition("#")[0].partition("?")[2]


def _fields(query: str) -> dict[str, str]:
    """Return the fields that count, each by its first value."""
    found: dict[str, str] = {}
    if not query:
        return found
    try:
        pairs = parse_qsl(query[:MAX_QUERY], max_num_fields=MAX_FIELDS, errors="replace")
    except ValueError:  # more fields than are looked at
        return found
    for name, value in pairs:
        name, value = name.lower(), value.strip()[:MAX_VALUE]
        if name in UTM and value and name not in found:
            found[name] = value
        elif name in _SEARCH_CLICKS or name in _SOCIAL_CLICKS:
            found[name] = ""
    return found


def _channel(host: str | None, utm: dict[str, str], fields: dict[str, str]) -> str:
    """Return the channel: what the campaign says wins over what the referrer suggests."""
    source, medium = utm.get("utm_source", ""), utm.get("utm_medium", "")
    kind = _kind_of_source(source) or _kind_of_host(host)
    if medium in _DISPLAY:
        return "display"
    if medium in _AFFILIATE_MEDIUM:
        return "affiliate"
    if medium in _MAIL_MEDIUM:
        return "email"
    if _PAID.match(medium):
        return "paid_search" if kind == "search" else "paid_social" if kind == "social" else "other"
    if not _SEARCH_CLICKS.isdisjoint(fields):
        return "paid_search"
    if not _SOCIAL_CLICKS.isdisjoint(fields):
        return "paid_social"
    if medium in _SOCIAL_MEDIUM:
        return "organic_social"
    if kind is not None:
        return {"search": "organic_search", "social": "organic_social"}.get(kind, kind)
    if medium == "organic":
        return "organic_search"
    if medium == "referral" or (host is not None and not utm):
        return "referral"
    if utm:
        return "other"
    return "direct"


def _kind_of_source(source: str) -> str | None:
    """Return what a campaign's source is by its name or its host: search, social, ai_assistant or email."""
    name = source.removesuffix(".com")
    for kind, names in (("ai_assistant", ASSISTANT_NAMES), ("search", SEARCH_NAMES), ("social", SOCIAL_NAMES)):
        if name in names:
            return kind
    if source in _MAIL_MEDIUM:
        return "email"
    return _kind_of_host(source) if "." in source else None


def _kind_of_host(host: str | None) -> str | None:
    if host is None:
        return None
    # The narrower ones first: gemini.google.com and mail.google.com are no search.
    for kind, names in (("ai_assistant", ASSISTANTS), ("email", MAIL), ("social", SOCIAL), ("search", SEARCH)):
        if any(_belongs(host, name) for name in names):
            return kind
    return None


def _belongs(host: str, name: str) -> bool:
    if name.endswith("."):
        # The label, and after it one or two of the domain: google.de, google.co.uk, not google.example.com.
        return re.fullmatch(rf"(?:[\w-]+\.)*{re.escape(name)}(?:com|co|[a-z]{{2}})(?:\.[a-z]{{2}})?", host) is not None
    return host == name or host.endswith("." + name)


def _bare(host: str) -> str:
    return host.partition(":")[0].lower().removeprefix("www.")
