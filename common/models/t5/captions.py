"""Cleaning captions for the text encoder."""

import html
import re

_LINK = re.compile(r"https?:\S*|www\.\S+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|co|io|ru)\b\S*")
_MAIL = re.compile(r"\S+@\S+\.\S+")
_TAG = re.compile(r"</?[a-z!][^<>]*>")
_HANDLE = re.compile(r"(?<!\w)@\w+")
_FILE_NAME = re.compile(r"\S+\.(?:jpe?g|png|webp|gif|bmp|pdf|mp4|apk|zip|rar)\b")
_LONG_NUMBER = re.compile(r"#?\b\d{6,}\b")
_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}")
_REPEATED = re.compile(r"([.,:;!?*_~-])\1{2,}")
_SPACES = re.compile(r"\s+")
_EDGES = " \t\n_-:*|,;+\\/"

_QUOTES = str.maketrans({**dict.fromkeys("‘’‚´`", "'"), **dict.fromkeys("“”„«»", '"')})
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−", "-"))


def clean_caption(caption: str) -> str:
    """Lower-case, without links, addresses, tags, handles, file names and long numbers; "" if nothing is left.

    LlamaGen's captions were cleaned twice by a longer list of rules. This list is our own and shorter: it does not
    repair mis-decoded text, drop ideographs, shop phrases (`free shipping`) or mixed codes (`jc6640`), or split
    words at underscores. Plain sentences give the same result.
    """
    text = html.unescape(html.unescape(caption)).lower().translate(_QUOTES).translate(_DASHES)
    for noise in (_TAG, _MAIL, _LINK, _HANDLE, _FILE_NAME, _LONG_NUMBER, _BRACKETS):
        text = noise.sub(" ", text)
    text = _REPEATED.sub(r"\1", text)
    return _SPACES.sub(" ", text).strip(_EDGES)
