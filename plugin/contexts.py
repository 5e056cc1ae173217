"""What the listener accepts: storage classes, and the transfer syntaxes they may be encoded in (PS3.4 annex B.5).

Every storage class of the standard is taken, so that the push of a whole study never fails because of one report or
presentation state in it: the bytes are kept as they come, and what cannot be scored is said later, in the result. All
transfer syntaxes are taken likewise, because nothing is decoded here.
"""

from pydicom import uid
from pynetdicom.presentation import AllStoragePresentationContexts

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"

UNCOMPRESSED = (str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian), str(uid.ExplicitVRBigEndian))

COMPRESSED = tuple(
    str(syntax)
    for syntax in (
        uid.DeflatedExplicitVRLittleEndian,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
        uid.RLELossless,
        uid.MPEG2MPML,
        uid.MPEG2MPHL,
        uid.MPEG4HP41,
        uid.MPEG4HP41BD,
    )
)

# Retired classes that old archives still push, and private ones that scanners put beside their images.
_RETIRED = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.5", "1.2.840.10008.5.1.4.1.1.6")
_PRIVATE = (
    "1.2.840.113619.4.26",
    "1.2.840.113619.4.27",
    "1.2.840.113619.4.30",
    "1.3.12.2.1107.5.9.1",
    "1.3.46.670589.11.0.0.12.1",
    "1.3.46.670589.11.0.0.12.2",
    "1.3.46.670589.11.0.0.12.4",
)

STORAGE_CLASSES = frozenset(
    [str(context.abstract_syntax) for context in AllStoragePresentationContexts] + list(_RETIRED + _PRIVATE)
)
STORAGE_SYNTAXES = frozenset(UNCOMPRESSED + COMPRESSED)
MESSAGE_SYNTAXES = frozenset(UNCOMPRESSED)


def accepted_syntaxes(abstract_syntax: str) -> frozenset[str]:
    """The transfer syntaxes accepted for an abstract syntax; empty when the abstract syntax is not served."""
    if abstract_syntax in STORAGE_CLASSES:
        return STORAGE_SYNTAXES
    if abstract_syntax in (VERIFICATION, STORAGE_COMMITMENT):
        return MESSAGE_SYNTAXES
    return frozenset()
