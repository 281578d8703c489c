"""What Kubernetes takes for a name, a key and a label: each says what is wrong with one, or nothing."""

import re

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_PART}(\.{_PART})*")
_ENTRY = re.compile(r"[-._A-Za-z0-9]{1,253}")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def wrong_dns_1035(name: str, longest: int) -> str:
    """What is wrong with a name of what becomes a host's name."""
    if len(name) > longest:
        return f"it has {len(name)} characters, and {longest} are allowed."
    if not _DNS_1035.fullmatch(name):
        return "it must be of lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen."
    return ""


def wrong_subdomain(name: str) -> str:
    """What is wrong with a name of what is not."""
    if len(name) > 253:
        return f"it has {len(name)} characters, and 253 are allowed."
    if not _SUBDOMAIN.fullmatch(name):
        return "it must be of lower-case letters, digits, hyphens and points, and begin and end with a letter or digit."
    return ""


def wrong_key(key: str) -> str:
    """What is wrong with a label's or an annotation's key: its name, maybe after a domain and a slash."""
    domain, slash, name = key.rpartition("/")
    if slash and wrong_subdomain(domain):
        return f"before the slash, {wrong_subdomain(domain)}"
    return wrong_value(name) if name else "it has no name."


def wrong_value(value: str) -> str:
    """What is wrong with a label's value."""
    if len(value) > 63:
        return f"it has {len(value)} characters, and 63 are allowed."
    if value and not _WORD.fullmatch(value):
        return "it must be of letters, digits, -, _ and points, and begin and end with a letter or digit."
    return ""


def wrong_entry(name: str) -> str:
    """What is wrong with the name of an entry of a Secret or a ConfigMap."""
    if not _ENTRY.fullmatch(name):
        return "it must be of letters, digits, hyphens, underscores and points, 253 at most."
    return ""
