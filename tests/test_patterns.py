"""How the patterns of data/rules.toml are written, and that looking for them is linear."""

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from mintoken.patterns import Vocabulary


def fits(pattern, text):
    return Vocabulary({7: (pattern,)}).found(text) == {7}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("stem", "A Stemming word"),
        ("stem", "(stem)"),
        ("über", "Über alles"),
        ("über", "U\u0308ber alles"),
        ("gdpr", "根据GDPR的规定"),
        ("漏洞", "这个漏洞很大"),
        ("two words", "two\n  words"),
        (r"cve\b", "a CVE"),
        (r"cve\b", "CVE-2024"),
        ("it's", "It’s"),
        ("^what", "What is it"),
        ("~vertrag", "Mietvertrag"),
        ("borr~ todo", "borramos todo"),
        ("one … two", "one and then two"),
        ("one … two", "one two"),
        ("削除…全部", "削除して、全部"),
        ("drop …2 table", "drop table"),
        ("drop …2 table", "drop the old table"),
        ("a ?b", "ab"),
        ("a ?b", "a b"),
        ("one|two … three|four", "one"),
        ("one|two … three|four", "two and three"),
        ("one|two … three|four", "four"),
        ("老板|房东…(可以|能)|工资", "工资"),
        (r"[|]|\||(one|two) … (three|four)", "two and three"),
        ("two words", "two\xa0words"),
        ("two words", "Two\u3000\u2009words"),
        ("stem", "question:\xa0stem"),
        ("stem", "st\xade\u200bm\ufeff"),
        (r"cve-\d", "ＣＶＥ－２０２４"),
        ("ウイルス", "ｳｲﾙｽ"),
        ("bold", "𝐁𝐨𝐥𝐝"),
        ("one (to )?two", "**one** *to* `two`"),
        ("two", "one`two`"),
        ("~vertrag", "Miet\xadvertrag"),
    ],
)
def test_a_pattern_fits(pattern, text):
    assert fits(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("stem", "system"),
        ("über", "Darüber"),
        (r"cve\b", "cvent"),
        ("^what", "Say what"),
        ("^what", "\nwhat"),
        ("one … two", "one. And two"),
        ("one … two", "one\nand two"),
        ("one … two", "one attwo"),
        ("one … two", "two before one"),
        ("drop …2 table", "drop all of the table"),
        ("stem", ""),
        ("one|two … three|four", "two"),
        ("one|two … three|four", "three"),
        ("(one|two) … (three|four)", "one"),
    ],
)
def test_a_pattern_does_not_fit(pattern, text):
    assert not fits(pattern, text)


def test_every_signal_in_a_text_is_found():
    vocabulary = Vocabulary({0: ("one", "uno"), 1: ("two … three", "漢"), 5: ("six",), 6: ()})
    assert vocabulary.found("one and two, then three") == {0, 1}
    assert vocabulary.found("漢 uno") == {0, 1}
    assert vocabulary.found("seven") == set()


def test_a_bad_pattern_is_refused():
    with pytest.raises(re2.error):
        Vocabulary({0: ("(one",)})


def test_with_little_memory_nothing_that_is_there_is_missed(monkeypatch):
    words = [f"word{number}~{number}" for number in range(0, 200, 7)]
    text = "".join(map(chr, range(32, 60_000, 11))) + " word14 14 one, two"
    tried = []
    for memory in range(20_000, 400_000, 20_000):
        monkeypatch.setattr("mintoken.patterns._MAX_MEMORY", memory)
        try:
            vocabulary = Vocabulary({0: tuple(words), 1: ("one … two",)})
        except re2.error:
            continue
        tried.append(vocabulary.found(text) >= {1})
    assert len(tried) > 5
    assert all(tried)


@given(st.text())
def test_no_text_makes_it_fail(text):
    assert Vocabulary({0: ("a … b", "漢", "^é~")}).found(text) <= {0}
