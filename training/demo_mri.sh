#!/bin/sh
# `make train-demo-mri`: a made OAI with planted effects through every step of the MRI part of the training package, and
# the bundles served to a study that comes in over DICOM.
#
#   training/demo_mri.sh OUT [PATIENTS]
#
# No patient is in it, and the EfficientNet-B0 is random: the report says so. What counts is that the planted effects are
# found, and that all steps hold together: where they are not found, all steps are done, and the last word is an error.
set -eu
OUT=$1
PATIENTS=${2:-100}
PYTHON=${PYTHON:-python3}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"

train() {
    printf '\n$ genu-train %s\n' "$*"
    "$PYTHON" -m training.cli "$@"
}

rm -rf "$OUT"
mkdir -p "$OUT"
# A stronger effect than by default, on more knees: 100 participants are few.
train synth oai --out "$OUT/oai" --patients "$PATIENTS" --seed 1 --effect image=6 --effect base=-0.7
train index "$OUT/oai/images"
train cohort oai-mri --export "$OUT/oai/images" --tables "$OUT/oai/tables" --out "$OUT/oai/cohort"
train preprocess --cohort "$OUT/oai/cohort" --export "$OUT/oai/images" --sequence cor_iw_tse --out "$OUT/prepared"
printf '\nThe backbone: an EfficientNet-B0 with RANDOM weights, marked as synthetic.\n'
"$PYTHON" -m training.embed_standins "$OUT/weights" --only efficientnet_b0
train embed --prepared "$OUT/prepared" --backbone efficientnet_b0 --weights "$OUT/weights/efficientnet_b0" \
    --out "$OUT/features"
missed=
for target in progression_abs womac_pain_binary; do
    run="$OUT/$target"
    train fit --cohort "$OUT/oai/cohort" --slices "$OUT/features" --target "$target" --networks 1 --run "$run" \
        --systems image image_header
    train evaluate --run "$run"
    train recover --run "$run" --truth "$OUT/oai/truth.json" || missed="$missed $target"
    train report --run "$run"
    train export --run "$run" --system image_header --weights "$OUT/weights/efficientnet_b0" --out "$OUT/bundles/$target"
done

# Someone whom no network has seen comes to the scanner: three sequences of both knees, a large lesion in the left one.
train synth oai --out "$OUT/arrival" --patients 1 --seed 43
mkdir "$OUT/study"
number=0
find "$OUT/arrival/images/00m" -type f -name '0*' | sort | while read -r file; do
    number=$((number + 1))
    cp "$file" "$OUT/study/$(printf %03d $number).dcm"
done
printf '\n$ genu listen, storescu and storescp\n'
"$PYTHON" -m plugin.demo --samples "$OUT/study" --out "$OUT/served" --bundle "$OUT/bundles/progression_abs" \
    --bundle "$OUT/bundles/womac_pain_binary"

printf '\nReports: %s and %s\nBundles: %s\nWhat Genu said of the study: %s\n' "$OUT/progression_abs/report/report.html" \
    "$OUT/womac_pain_binary/report/report.html" "$OUT/bundles" "$OUT/served/pacs"
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && command -v xdg-open >/dev/null 2>&1; then
    xdg-open "$OUT/progression_abs/report/report.html" >/dev/null 2>&1 || true
fi
if [ -n "$missed" ]; then
    printf '\nNot all that was planted is recovered (%s): see the lines of genu-train recover, and the reports.\n' "${missed# }" >&2
    exit 1
fi
