"""Telling a page that wants to see a human from an answer of the service behind it."""

from __future__ import annotations

from collections.abc import Mapping

# What the pages of the common protections carry, in lower case: Cloudflare, DDoS-Guard, Sucuri, Imperva, AWS, Anubis.
_MARKERS = (
    b"cdn-cgi/challenge-platform",
    b"cf-chl-",
    b"_cf_chl_opt",
    b"<title>just a moment...</title>",
    b"ddos-guard",
    b"sucuri_cloudproxy",
    b"_incapsula_resource",
    b"awswafintegration",
    b"within.website/x/cmd/anubis",
)
_STATUSES = (403, 429, 503)


def is_html(headers: Mapping[str, str]) -> bool:
    """True if the answer calls itself HTML."""
    return headers.get("Content-Type", "").lower().lstrip().startswith(("text/html", "application/xhtml"))


def is_challenge(status: int, headers: Mapping[str, str], excerpt: bytes) -> bool:
    """True if the answer is a challenge page; `excerpt` is the beginning of its decoded body.

    A header says so with any status, a known marker in HTML only with 403, 429 or 503.
    """
    if "challenge" in headers.get("cf-mitigated", "").lower():
        return True
    if headers.get("x-amzn-waf-action", "").lower() in ("challenge", "captcha"):
        return True
    lowered = excerpt.lower()
    return status in _STATUSES and is_html(headers) and any(marker in lowered for marker in _MARKERS)
