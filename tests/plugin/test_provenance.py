"""What the derived UIDs rest on."""

from datetime import UTC, datetime

from plugin.provenance import report_context
from plugin.rows import Predecessor
from plugin.settings import Settings, load

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def context(settings: Settings | None = None, **changes: object) -> object:
    arguments = {"created": CREATED, "inputs": [("1.1", "aa"), ("1.2", "bb")]} | changes
    return report_context(settings or Settings(), **arguments)  # type: ignore[arg-type]


def test_the_order_of_the_inputs_does_not_matter() -> None:
    assert context() == context(inputs=[("1.2", "bb"), ("1.1", "aa")])


def test_other_bytes_other_options_or_another_station_do() -> None:
    station = load(None, {"station": {"device_serial": "2"}})
    others = [context(inputs=[("1.1", "aa")]), context(inputs=[("1.1", "aa"), ("1.2", "cc")])]
    others += [context(accept_secondary_capture=True), context(station)]
    assert len({repr(other) for other in [context(), *others]}) == 5


def test_a_configured_device_uid_is_used() -> None:
    assert context(load(None, {"station": {"device_uid": "1.2.3"}})).device_uid == "1.2.3"
    assert str(context().device_uid).startswith("2.25.")


def test_the_predecessor_is_named() -> None:
    made = context(predecessor=Predecessor("1.2", "1.3", "1.4", "1.5"))
    assert "sop_instance_uid='1.5'" in repr(made)
