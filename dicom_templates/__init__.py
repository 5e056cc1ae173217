"""What Genu says in DICOM: findings in, datasets out. No torch, no network."""
