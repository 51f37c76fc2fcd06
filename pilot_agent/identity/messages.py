"""The two messages of istiod's CA, described at run time: no generated code has them (reference, section 13)."""

from functools import cache
from typing import Any

_PACKAGE = "istio.v1.auth"


@cache
def messages() -> tuple[type[Any], type[Any]]:
    """The classes IstioCertificateRequest and IstioCertificateResponse. Imports protobuf."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="pilot_agent/istio_ca.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[struct_pb2.DESCRIPTOR.name],
    )
    request = file.message_type.add(name="IstioCertificateRequest")
    request.field.add(name="csr", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    request.field.add(name="validity_duration", number=3, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    request.field.add(
        name="metadata",
        number=4,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_OPTIONAL,
        type_name=".google.protobuf.Struct",
    )
    response = file.message_type.add(name="IstioCertificateResponse")
    response.field.add(name="cert_chain", number=1, type=field.TYPE_STRING, label=field.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass
    names = ("IstioCertificateRequest", "IstioCertificateResponse")
    first, second = (made(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in names)
    return first, second


def request_bytes(csr: bytes, ttl_s: int, cert_signer: str) -> bytes:
    request = messages()[0](csr=csr.decode(), validity_duration=ttl_s)
    request.metadata.fields["CertSigner"].string_value = cert_signer
    encoded: bytes = request.SerializeToString()
    return encoded


def chain_in(answer: bytes) -> list[str]:
    """The certificates of an answer. Raises ValueError for bytes that are no such message."""
    from google.protobuf.message import DecodeError

    try:
        return list(messages()[1].FromString(answer).cert_chain)
    except DecodeError as error:
        raise ValueError(str(error)) from None
