"""Inputs for fuzzing: values, texts and bytes near to what a reader expects, and far from it."""

import copy

from hypothesis import strategies as st

WORDS = ["NA", "nan", "null", "", "..", "~", "~nouser/x", "{x}", "$x", "a\nb", "\ud800", "1:30", "x" * 300]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_subnormal=False),  # relearn flushes them to 0 in this process, and hypothesis notices
    st.text(max_size=8),
    st.sampled_from(WORDS),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: object, place: tuple = ()) -> list[tuple]:
    """Every place in a nested value."""
    if isinstance(value, dict):
        inner = list(value.items())
    else:
        inner = list(enumerate(value)) if isinstance(value, list) else []
    return [place, *(found for key, entry in inner for found in places(entry, (*place, key)))]


@st.composite
def changed(draw, good: object, values: st.SearchStrategy = VALUES) -> object:
    """`good` with one to three of its parts replaced, taken away, or joined by others."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(value)))
        if not place:
            value = draw(st.just(value) | values)
            continue
        around = value
        for key in place[:-1]:
            around = around[key]
        kind = draw(st.sampled_from(["replace", "remove", "add"]))
        if kind == "replace":
            around[place[-1]] = draw(values)
        elif kind == "remove":
            del around[place[-1]]
        elif isinstance(around, dict):
            around[draw(st.text(max_size=5) | st.sampled_from(WORDS))] = draw(values)
        else:
            around.append(draw(values))
    return value


@st.composite
def damaged(draw, good: bytes) -> bytes:
    """`good` cut, or with some of its bytes changed, taken away or added; now and then bytes of no kind."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, min(len(content), 400) - 1)))  # the head is what is parsed
        kind = draw(st.sampled_from(["set", "cut", "remove", "insert"]))
        if kind == "set" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place:]
        elif kind == "remove":
            del content[place : place + draw(st.integers(1, 20))]
        else:
            content[place:place] = draw(st.binary(min_size=1, max_size=9) | st.sampled_from([b"[", b"{", b",", b'"']))
    return bytes(content)
