"""A Structured Report as a readable tree for a terminal; it shows the content only, nothing of the patient."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

_LONG_UID = 40


def render_tree(report: Dataset) -> str:
    """The content tree of a report, one line for each content item (PS3.3 C.17.3)."""
    return "\n".join([_label(report), *_branches(report, "")])


def _branches(item: Dataset, indent: str) -> Iterator[str]:
    children = [child for child in item.get("ContentSequence", ()) if not _is_modifier(child)]
    for child in children:
        last = child is children[-1]
        yield f"{indent}{'└─ ' if last else '├─ '}{_label(child)}"
        yield from _branches(child, indent + ("   " if last else "│  "))


def _is_modifier(item: Dataset) -> bool:
    """Concept modifiers that `_label` writes behind their parent's value: laterality of a finding site."""
    return bool(item.get("RelationshipType") == "HAS CONCEPT MOD" and _name(item) == "Laterality")


def _label(item: Dataset) -> str:
    value = _value(item)
    modifiers = [_value(child) for child in item.get("ContentSequence", ()) if _is_modifier(child)]
    text = f"{_name(item)}: {value}" if value else _name(item)
    return f"{text} ({', '.join(modifiers)})" if modifiers else text


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeMeaning) if names else "item"


def _value(item: Dataset) -> str:
    """The value of a content item in words; empty for a container."""
    kind = item.get("ValueType")
    if kind == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    if kind == "NUM":
        measured = item.MeasuredValueSequence[0]
        unit = measured.MeasurementUnitsCodeSequence[0]
        return str(measured.NumericValue) + ("" if unit.CodeValue == "1" else f" {unit.CodeMeaning}")
    if kind == "SCOORD":
        data = [float(number) for number in item.GraphicData]
        columns, rows = data[0::2], data[1::2]
        return f"columns {min(columns):g}-{max(columns):g}, rows {min(rows):g}-{max(rows):g}"
    if kind in {"IMAGE", "COMPOSITE"}:
        return _short(str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
    return _short(str(item.get("UID", ""))) if kind == "UIDREF" else str(item.get("TextValue", ""))


def _short(uid: str) -> str:
    return uid if len(uid) <= _LONG_UID else f"{uid[:12]}...{uid[-12:]}"
