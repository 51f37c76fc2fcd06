"""Messages described by tables (`pilot_agent.protobuf`), held against those of the protobuf library."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from pilot_agent.protobuf import Field, Message

_KINDS = {
    "string": FieldDescriptor.TYPE_STRING,
    "bytes": FieldDescriptor.TYPE_BYTES,
    "int32": FieldDescriptor.TYPE_INT32,
    "int64": FieldDescriptor.TYPE_INT64,
    "bool": FieldDescriptor.TYPE_BOOL,
}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=200),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
}


def differences(message: Message, descriptor: Descriptor) -> list[str]:
    """Where the table says something else than the generated code, fields of fields included."""
    found = []
    if message.name and message.name != descriptor.full_name:
        found.append(f"{message.name} is {descriptor.full_name}")
    for name, field in message.fields.items():
        known = descriptor.fields_by_name.get(name)
        where = f"{descriptor.full_name}.{name}"
        if known is None:
            found.append(f"{where}: there is none")
            continue
        is_message = isinstance(field.kind, Message)
        kind = FieldDescriptor.TYPE_MESSAGE if isinstance(field.kind, Message) else _KINDS[field.kind]
        told = (field.number, kind, field.is_repeated)
        if told != (known.number, known.type, known.is_repeated):
            found.append(f"{where}: {told} is {(known.number, known.type, known.is_repeated)}")
        is_of_map = descriptor.GetOptions().map_entry
        if not is_message and not field.is_repeated and field.has_presence != (known.has_presence or is_of_map):
            found.append(f"{where}: its presence is {known.has_presence}")
        if isinstance(field.kind, Message) and known.message_type is not None:
            found += differences(field.kind, known.message_type)
    return found


def values_of(message: Message, *, is_entry: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Values as `decode` gives them: every field, None for a message that is not there."""
    return st.fixed_dictionaries({name: _of_field(field, is_entry) for name, field in message.fields.items()})


def _of_field(field: Field, is_entry: bool) -> st.SearchStrategy[Any]:
    if not isinstance(field.kind, Message):
        value = _VALUES[field.kind]
        return st.lists(value, max_size=3) if field.is_repeated else value
    if is_map(field):
        return st.lists(values_of(field.kind, is_entry=True), max_size=1)  # the order of several is nobody's
    if field.is_repeated:
        return st.lists(values_of(field.kind), max_size=3)
    return values_of(field.kind) if is_entry else st.none() | values_of(field.kind)


def without_rivals(values: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    """Of each oneof of messages only the first that is there."""
    kept, taken = dict(values), set()
    for name, value in values.items():
        rivals = descriptor.fields_by_name[name].containing_oneof
        if rivals is not None and value is not None:
            kept[name] = None if rivals.name in taken else value
            taken.add(rivals.name)
    return kept


def is_map(field: Field) -> bool:
    return isinstance(field.kind, Message) and list(field.kind.fields) == ["key", "value"] and field.is_repeated


def fill(generated: Any, message: Message, values: dict[str, Any]) -> Any:
    """The same values in a message of the library's; what has presence is set, empty or not."""
    for name, field in message.fields.items():
        value = values[name]
        if is_map(field):
            for entry in value:
                _put(getattr(generated, name), field.kind.fields["value"], entry)  # type: ignore[union-attr]
        elif isinstance(field.kind, Message) and field.is_repeated:
            for each in value:
                fill(getattr(generated, name).add(), field.kind, each)
        elif isinstance(field.kind, Message):
            if value is not None:
                getattr(generated, name).SetInParent()
                fill(getattr(generated, name), field.kind, value)
        elif field.is_repeated:
            getattr(generated, name).extend(value)
        else:
            setattr(generated, name, value)
    return generated


def _put(target: Any, field: Field, entry: dict[str, Any]) -> None:
    if isinstance(field.kind, Message):
        fill(target[entry["key"]], field.kind, entry["value"])
    else:
        target[entry["key"]] = entry["value"]


def istios(package: str, **messages: list[tuple[str, int, str, bool]]) -> dict[str, Any]:
    """Classes of messages that are in nobody's generated code, from (name, number, kind, is repeated).

    A kind that starts with a dot is a message; google.protobuf.Struct is known.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for name, number, kind, is_repeated in fields:
            field: Any = described.field.add(name=name, number=number)
            field.label = FieldDescriptor.LABEL_REPEATED if is_repeated else FieldDescriptor.LABEL_OPTIONAL
            if kind.startswith("."):
                field.type, field.type_name = FieldDescriptor.TYPE_MESSAGE, kind
            else:
                field.type = _KINDS[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


ISTIO_CA = istios(
    "istio.v1.auth",
    IstioCertificateRequest=[
        ("csr", 1, "string", False),
        ("validity_duration", 3, "int64", False),
        ("metadata", 4, ".google.protobuf.Struct", False),
    ],
    IstioCertificateResponse=[("cert_chain", 1, "string", True)],
)
"""The messages of istiod's CA (istio.io/api's security/v1alpha1/ca.proto), for the fake one too."""
