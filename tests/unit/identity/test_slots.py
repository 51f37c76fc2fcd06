"""Slots: what a name stands for, who hears of it, and when that is news."""

from pilot_agent.identity.certificate import CertificateFacts
from pilot_agent.identity.slots import Secret, Slot, key_pair, validation

FACTS = CertificateFacts("", "", "", "1", 0, 1, "", "")
ONE, TWO = key_pair(b"chain", b"key", FACTS), key_pair(b"chain", b"other key", FACTS)


class Listening:
    """What a listener saw at each call."""

    def __init__(self, slot: Slot) -> None:
        self.slot, self.seen = slot, list[tuple[str | None, str | None]]()
        slot.listen(self.changed)

    def changed(self) -> None:
        secret = self.slot.secret
        self.seen.append((secret.version if secret is not None else None, self.slot.problem))


# Secrets


def test_a_version_is_of_the_whole_content() -> None:
    assert ONE.version == key_pair(b"chain", b"key", FACTS).version
    assert ONE.version != TWO.version, "a key alone makes another one"
    assert validation(b"roots").version != validation(b"roots", b"crl").version
    assert validation(b"a", b"b").version != validation(b"ab").version


def test_a_secret_knows_its_kind_and_does_not_show_itself() -> None:
    assert (ONE.is_key_pair, validation(b"roots").is_key_pair) == (True, False)
    assert repr(ONE) == f"Secret({ONE.version})"
    assert "key" not in f"{ONE} {[ONE]}"


# Slots


def test_offers_are_told_when_they_differ() -> None:
    slot = Slot("default")
    listening = Listening(slot)
    assert [slot.offer(each) for each in (ONE, ONE, TWO, ONE)] == [True, False, True, True]
    assert listening.seen == [(ONE.version, None), (TWO.version, None), (ONE.version, None)]
    assert slot.secret is ONE


def test_the_same_offer_still_says_that_all_is_well() -> None:
    slot = Slot("default")
    slot.offer(ONE)
    slot.note("the CA is down")
    slot.offer(ONE)
    assert slot.problem is None


def test_a_failure_is_told_while_there_is_nothing_only() -> None:
    slot = Slot("default")
    listening = Listening(slot)
    slot.fail("first")
    slot.fail("second")
    assert (slot.failures, slot.problem) == (2, "second")
    slot.offer(ONE)
    slot.fail("third")
    assert (slot.failures, slot.problem, slot.secret) == (2, "third", ONE)
    assert listening.seen == [(None, "first"), (None, "second"), (ONE.version, None)]


def test_a_note_changes_nothing_that_is_served() -> None:
    slot = Slot("default")
    listening = Listening(slot)
    slot.note("hm")
    assert (slot.problem, slot.failures, listening.seen) == ("hm", 0, [])
    slot.note(None)
    assert slot.problem is None


def test_what_is_withdrawn_is_gone_and_told() -> None:
    slot = Slot("default")
    listening = Listening(slot)
    slot.offer(ONE)
    slot.withdraw("expired")
    assert (slot.secret, slot.failures) == (None, 1)
    assert listening.seen == [(ONE.version, None), (None, "expired")]
    assert slot.offer(ONE), "the same one is news again"


def test_who_listens_to_an_empty_slot_makes_it_wanted() -> None:
    wanted: list[str] = []
    slot = Slot("default", lambda slot: wanted.append(f"{slot.name}, {slot.listeners}"))
    Listening(slot)
    Listening(slot)
    slot.offer(ONE)
    Listening(slot)
    assert wanted == ["default, 1", "default, 2"]


def test_who_has_forgotten_hears_nothing_more_even_in_the_middle() -> None:
    slot = Slot("default")
    heard: list[str] = []

    def first() -> None:
        heard.append("first")
        slot.forget(first)
        slot.forget(first)

    slot.listen(first)
    slot.listen(lambda: heard.append("second"))
    slot.offer(ONE)
    slot.offer(TWO)
    assert sorted(heard) == ["first", "second", "second"]
    assert slot.listeners == 1


def test_the_same_listener_twice_is_one() -> None:
    slot = Slot("default")
    heard: list[Secret | None] = []

    def changed() -> None:
        heard.append(slot.secret)

    slot.listen(changed)
    slot.listen(changed)
    slot.offer(ONE)
    assert (heard, slot.listeners) == ([ONE], 1)
