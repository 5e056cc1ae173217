"""Every error that Genu raises on purpose, in one tree.

    GenuError
    ├── RefusalError            what arrived cannot be scored: report the coded reason, do not try again
    │   └── UnreadableError     not even the header can be trusted (truncated, absurd sizes, nesting, not DICOM)
    ├── RetryableError          the world is at fault and may mend: try again later
    │   ├── DeliveryError       a destination did not take an object
    │   │   └── UnreachableError    (plugin.verdicts) nobody answers there
    │   ├── WebError            (plugin.web) a web server does not answer, or not with success
    │   │   └── NotOrthancError     (plugin.orthanc_api) it answers, but not as Orthanc does
    │   ├── MultipartError      (plugin.multipart) an answer of WADO-RS that is no multipart answer, or is cut off
    │   ├── NotUnderstoodError  (plugin.stow) an answer of STOW-RS that cannot be read
    │   └── ResourceError       disk full, memory short, database busy
    ├── UsageError              the person at the command line or in the settings file can mend it
    │   ├── ConfigurationError  a setting is wrong: names the setting, its value and what to do
    │   └── DataError           a table, folder or label is not what the command needs
    │       └── UnfitError          (training.readers_pictures) a series that cannot be shown: another is drawn
    ├── BundleError             a model bundle does not load, or does not replay its stored probe
    ├── StaleClaimError         (plugin.jobs) another worker has the job by now: drop the work
    ├── ReferencesError         (plugin.references) a storage commitment request that cannot be read
    ├── OddError                (training.index_values) a header that the quick scanner leaves to the full reader
    └── PeerError               (plugin.wire) the other end of an association; ends that association only
        ├── PeerGoneError       it closed the connection
        ├── PeerTooSlowError    it kept a message or the handshake waiting
        └── ProtocolError       it sent what PS3.8 does not allow

A RefusalError ends as a report; a RetryableError ends as a later attempt and at last as a dead letter; everything else
that escapes a worker is a bug and ends as a dead letter with its traceback in the log.
"""

from inference.findings import Refusal, RefusalCode, Side


class GenuError(Exception):
    """Root of the tree."""


class RefusalError(GenuError):
    """An image, a knee or a study cannot be scored, for a reason that belongs into a report."""

    def __init__(self, code: RefusalCode, reason: str, *, source: str | None = None, side: Side | None = None) -> None:
        super().__init__(f"{code.value}: {reason}")
        self.refusal = Refusal(code=code, reason=reason, source=source, side=side)


class UnreadableError(RefusalError):
    """The bytes cannot be read as a DICOM object within the limits."""


class RetryableError(GenuError):
    """A fault outside of Genu that may mend by itself."""


class DeliveryError(RetryableError):
    """A destination refused an object or could not be reached."""


class ResourceError(RetryableError):
    """Disk, memory or database cannot serve at the moment."""


class UsageError(GenuError):
    """The caller can mend it: command line, settings or data."""


class ConfigurationError(UsageError):
    """A setting is wrong."""


class DataError(UsageError):
    """A table, a folder or a label is not what the command needs."""


class BundleError(GenuError):
    """A model bundle cannot be trusted: missing file, hash mismatch, probe not replayed."""
