"""`genu score` with a DICOMweb server: studies come from it into a temporary folder, and results go back to it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from rich.progress import Progress

from inference.errors import ConfigurationError, DeliveryError, GenuError, ResourceError
from inference.installed import reads_mr
from inference.reading import StudyInput, read_study
from plugin.destinations import opened
from plugin.dicomweb import DicomWebReader, checked
from plugin.results import failed_line
from plugin.scoring import Scored
from plugin.settings import Settings, StowDestination
from plugin.verdicts import Outcome, Outgoing, Session, UnreachableError, Verdict


@contextmanager
def fetched(
    settings: Settings, study_uids: Sequence[str], progress: Progress
) -> Iterator[tuple[list[StudyInput], list[Scored]]]:
    """The studies, readable within the context, and the outcomes of those that could not be fetched whole.

    Raises ConfigurationError without a server, DataError for what is no UID, BundleError for a bundle whose manifest
    cannot be read, ResourceError when the disk fails.
    """
    if settings.dicomweb is None:
        raise ConfigurationError("--study: from which server? Give --dicomweb URL, or set dicomweb.url")
    uids = list(dict.fromkeys(checked(uid) for uid in study_uids))
    whole_mr = reads_mr(settings.bundles)
    reader = DicomWebReader(settings.dicomweb, settings.listener.max_instance_bytes, whole_mr=whole_mr)
    studies: list[StudyInput] = []
    failed: list[Scored] = []
    task = progress.add_task("fetching", total=None)
    try:
        with _temporary() as folder:
            for number, uid in enumerate(uids):
                place = folder / str(number)
                place.mkdir()
                try:
                    files = reader.fetch_study(uid, place, lambda: progress.advance(task))
                except ResourceError:
                    raise
                except GenuError as error:  # a study that is not whole is not scored, as if it were
                    failed.append(Scored(failed_line(uid), str(error)))
                else:
                    studies.append(read_study(files, study_instance_uid=uid))
            progress.remove_task(task)
            yield studies, failed
    finally:
        reader.close()


@contextmanager
def _temporary() -> Iterator[Path]:
    """A folder that only we can read, under TMPDIR, gone at the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="genu-dicomweb-")
    except OSError as error:
        raise ResourceError(f"no temporary folder ({error.strerror}): set TMPDIR to one with free space") from error
    with folder as path:
        yield Path(path)


class Returner:
    """Puts results back by STOW-RS, and counts."""

    def __init__(self, destinations: Sequence[StowDestination], our_title: str) -> None:
        self._destinations = destinations
        self._our_title = our_title
        self.stored = 0
        self.lost = 0

    def put(self, files: Sequence[Path]) -> Iterator[str]:
        """Send the files everywhere; a sentence for each that was not stored."""
        items = [_outgoing(file) for file in files]
        for destination in self._destinations if items else ():
            left = len(items)
            try:
                with opened(destination, items, self._our_title) as session:
                    for item in items:
                        verdict = _sent(session, item)
                        left -= 1
                        if verdict.outcome is Outcome.STORED:
                            self.stored += 1
                        else:
                            self.lost += 1
                            yield f"{item.path.name}: not stored at {destination.url}: {verdict.text}"
            except UnreachableError as error:
                self.lost += left
                yield f"{left} objects not stored at {destination.url}: {error}"


def _sent(session: Session, item: Outgoing) -> Verdict:
    """The verdict; an answer that breaks off at this object is one about this object."""
    try:
        return session.send(item)
    except UnreachableError:
        raise
    except DeliveryError as error:
        return Verdict(Outcome.DEFERRED, str(error))


def _outgoing(file: Path) -> Outgoing:
    header = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    return Outgoing(file, str(header.SOPClassUID), str(header.SOPInstanceUID))
