"""What JSON shows of accounts and keys: where the product is stopped."""

from dataclasses import replace

from store_cases import NOW, key

from mintoken.documents import stop_documents
from mintoken.models import Directory, Verdict

KEY = replace(key("one"), origin="", auto_stop=True)


def test_what_is_stopped_is_told_the_longest_first() -> None:
    verdicts = {
        ("one", "new"): Verdict(True, NOW + 5000),
        ("one", "old"): Verdict(True, NOW),
        ("one", "again"): Verdict(False, NOW),
        ("other", "old"): Verdict(True, NOW),
    }
    found = stop_documents(Directory(1, (), (KEY,), (), verdicts), [KEY])
    assert [(one["key"], one["model"]) for one in found] == [(KEY.name, "old"), (KEY.name, "new")]
    assert str(found[0]["since"]).endswith("Z")


def test_keys_that_replaced_each_other_are_told_once_and_those_unwatched_not() -> None:
    verdicts = {("one", "m"): Verdict(True, NOW)}
    after = replace(KEY, id="two", name="after", origin="one")
    gone = replace(KEY, revoked_at=NOW)
    directory = Directory(1, (), (gone, after), (), verdicts)
    assert [one["key"] for one in stop_documents(directory, directory.keys)] == ["after"]
    for unwatched in (replace(KEY, control=0), replace(KEY, auto_stop=False)):
        assert stop_documents(directory, [unwatched]) == []
