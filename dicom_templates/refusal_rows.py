"""The refusal codes as rows of the table in `codes`: code value, code meaning, definition, what to do about it."""

from typing import Final

from inference.findings import RefusalCode

REFUSAL_ROWS: Final[dict[RefusalCode, tuple[str, str, str, str]]] = {
    RefusalCode.NOT_A_KNEE: (
        "R-NOT-KNEE",
        "Not a knee",
        "The header names another part of the body.",
        "Nothing, if this is no knee; if it is one, correct Body Part Examined and send the image again.",
    ),
    RefusalCode.NO_FRONTAL_VIEW: (
        "R-NO-FRONTAL",
        "No frontal view",
        "The grade is defined on frontal views only.",
        "Nothing, if the view is right; send the frontal (AP or PA) view where the study lacks it.",
    ),
    RefusalCode.VIEW_UNKNOWN: (
        "R-VIEW-UNKNOWN",
        "View unknown",
        "Nothing says which projection the image is.",
        "Fill View Position or View Code Sequence and send the image again.",
    ),
    RefusalCode.SIDE_UNKNOWN: (
        "R-SIDE-UNKNOWN",
        "Side unknown",
        "Nothing says which knee the image shows.",
        "Fill Image Laterality (on a film of both knees: Patient Orientation) and send the image again.",
    ),
    RefusalCode.SIDE_CONTRADICTORY: (
        "R-SIDE-CONTRA",
        "Side contradictory",
        "Two sources name different sides.",
        "Compare film and header, correct the wrong one and send the image again; Genu does not guess.",
    ),
    RefusalCode.NO_KNEE_FOUND: (
        "R-NO-KNEE-FOUND",
        "No knee found in pixels",
        "The pixels show no knee joint.",
        "Look at the film: a frontal knee must be on it, upright, in full size and not cut off.",
    ),
    RefusalCode.FILM_TURNED: (
        "R-TURNED",
        "Film turned",
        "The film lies on its side or head down.",
        "Turn the film upright where it was made, with Patient Orientation to match, and send it again.",
    ),
    RefusalCode.KNEE_CUT_OFF: (
        "R-CUT-OFF",
        "Knee cut off",
        "The joint is not whole on the film.",
        "Send a film with the whole joint, the ends of femur and tibia with it.",
    ),
    RefusalCode.KNEE_TOO_SMALL: (
        "R-TOO-SMALL",
        "Knee too small",
        "The knee has fewer pixels than the model needs.",
        "Send the film in full size, not a reduced copy; long-leg films need a film of the knee beside them.",
    ),
    RefusalCode.POOR_EXPOSURE: (
        "R-EXPOSURE",
        "Poor exposure",
        "Over- or under-exposed, or without contrast.",
        "Look at the film and its window; if another image of the knee shows bone and joint space, send that one.",
    ),
    RefusalCode.METAL: (
        "R-METAL",
        "Metal or implant",
        "Metal or an implant lies over the joint.",
        "Nothing, if the knee was operated on (the grade is not defined there); else send a film with the joint free.",
    ),
    RefusalCode.CAST: (
        "R-CAST",
        "Cast or brace",
        "A cast or a brace lies over the joint.",
        "Nothing, while it must stay on; send a film without it when there is one.",
    ),
    RefusalCode.UNLIKE_TRAINING: (
        "R-UNLIKE",
        "Unlike the training knees",
        "To the model the picture is unlike the knees that it has learnt from.",
        "Nothing, if this is no frontal knee of an adult; else let a person read the film: the model cannot.",
    ),
    RefusalCode.DERIVED_IMAGE: (
        "R-DERIVED",
        "Derived image",
        "Localizer, reformat, screen save or other derivation.",
        "Send the original image.",
    ),
    RefusalCode.FOR_PROCESSING: (
        "R-FOR-PROC",
        "For Processing image",
        "Raw detector data are not for inference.",
        "Send the For Presentation image of the same exposure.",
    ),
    RefusalCode.WRONG_PLANE: (
        "R-PLANE",
        "Wrong plane",
        "MR slices lie in another plane than the model reads.",
        "Nothing, if the plane is right; send the coronal or sagittal series that the model reads.",
    ),
    RefusalCode.WRONG_SEQUENCE: (
        "R-SEQUENCE",
        "Wrong MR sequence",
        "No model reads this MR sequence.",
        "Nothing, if the sequence is right; send the sequence that the model reads.",
    ),
    RefusalCode.TOO_FEW_SLICES: (
        "R-FEW-SLICES",
        "Too few slices",
        "The MR series has too few slices for a volume of the knee.",
        "Send the whole series; a scout or a few single slices are not scored.",
    ),
    RefusalCode.INCONSISTENT_GEOMETRY: (
        "R-GEOMETRY",
        "Inconsistent slice geometry",
        "Slices are missing, doubled, or of different sizes or orientations.",
        "Send the whole series again from the scanner, with every slice once.",
    ),
    RefusalCode.UNSUPPORTED_SOP_CLASS: (
        "R-SOP-CLASS",
        "SOP class not supported",
        "No model reads this kind of object.",
        "Send the knee as CR or DX, one frame an image, or allow Secondary Capture for its sender in the settings.",
    ),
    RefusalCode.UNSUPPORTED_TRANSFER_SYNTAX: (
        "R-SYNTAX",
        "Transfer syntax not supported",
        "No decoder for this compression; the reason names it.",
        "Send the image in another transfer syntax.",
    ),
    RefusalCode.NO_PIXEL_DATA: (
        "R-NO-PIXELS",
        "No pixel data",
        "The object carries no image.",
        "Send the image again, with its pixels.",
    ),
    RefusalCode.UNDECODABLE_PIXELS: (
        "R-UNDECODABLE",
        "Pixel data cannot be decoded",
        "Damaged or inconsistent pixels.",
        "Send the image again from where it was made.",
    ),
    RefusalCode.UNREADABLE: (
        "R-UNREADABLE",
        "Object cannot be read",
        "Not DICOM, truncated, or beyond the limits.",
        "Send the object again from where it was made.",
    ),
    RefusalCode.IDENTITY_CONTRADICTORY: (
        "R-IDENTITY",
        "Patient identity contradictory",
        "Instances of one study name different patients.",
        "Correct the identity at the source and send the study again.",
    ),
}

# What a card advises instead, where the refusal is of an MR series.
MR_REMEDIES: Final[dict[RefusalCode, str]] = {
    RefusalCode.NOT_A_KNEE: (
        "Nothing, if this is no knee; if it is one, correct Body Part Examined and send the series again."
    ),
    RefusalCode.SIDE_UNKNOWN: "Fill Laterality, or write the side into Series Description, and send the series again.",
    RefusalCode.SIDE_CONTRADICTORY: (
        "Correct what names the wrong side in the header and send the series again; Genu does not guess."
    ),
    RefusalCode.DERIVED_IMAGE: "Send the original series.",
}
