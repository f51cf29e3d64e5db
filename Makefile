# make demo · make test · make test-fast (the ring core) · make soak (tests/faults in full) · make bench · make figures (README's pictures and tables)
# make lint (linter, types) · make check (these, and known vulnerabilities) · make docs (the documentation site, into site/)
# Everything lives in .venv/; `make clean` removes it and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STORE ?= runs
# Processes that tests run in.
PARALLEL ?= -n 2
# The first held-out scene; the picture in README shows it.
SCENE := world_1000000

.PHONY: demo test soak test-fast bench bench-far benchmark benchmark-voc seeds figures docs check lint install clean

demo: install
	$(BIN)/excel demo --store $(STORE)

test: install
	$(BIN)/python -m pytest $(PARALLEL)

# Kills, power cuts, damaged and hostile files in full; writes the figures of docs/reliability.md.
soak: install
	$(BIN)/python -m pytest $(PARALLEL) tests/faults --soak
	$(BIN)/python docs/reliability.py
	$(BIN)/python docs/soak_curve.py

test-fast: install
	$(BIN)/python -m pytest $(PARALLEL) tests/core

bench: install
	mkdir -p docs/bench
	$(BIN)/python -m bench.speed --json docs/bench/speed.json
	$(BIN)/python -m bench.active_labels --json docs/bench/active_labels.json
	$(BIN)/python -m bench.scale --json docs/bench/scale.json
	$(BIN)/python -m bench.device --batches 4 --steps 2 --json docs/bench/device.json
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.overhead --json docs/bench/overhead.json
	$(BIN)/python -m bench.tables docs/bench > docs/speed.md
	$(BIN)/python -m bench.scale_page docs/bench > docs/scale.md

bench-far: install # ten million photos by simulation: an hour, 12 GB of disk
	$(BIN)/python -m bench.scale_far --json docs/bench/scale_far.json
	$(BIN)/python -m bench.scale_page docs/bench > docs/scale.md

benchmark: install # every method on the demo: the table and picture of docs/benchmark.md
	$(BIN)/excel benchmark demo --store $(STORE)
	cp "$$(ls -td $(STORE)/benchmark/*/ | head -1)benchmark.md" docs/demo_benchmark.md
	cp "$$(ls -td $(STORE)/benchmark/*/ | head -1)gallery_segmentation.png" docs/demo_benchmark.png

seeds: install # excel alone on the held-out scenes, trained whole with three seeds: docs/demo_seeds.md
	$(BIN)/excel benchmark demo --methods excel --seeds 3 --store $(STORE) --set benchmark.iterations=null \
		--set "dataset.seed_splits=[held_out_1,held_out_2,held_out_3]"
	cp "$$(ls -td $(STORE)/benchmark/*/ | head -1)benchmark.md" docs/demo_seeds.md

# Every method on VOC photos, VOC=folder, with the repository's tiny encoders at 128 pixels: docs/voc_benchmark.md. An hour.
TINY := cams.image_size=128 train.crop=128 predict.image_size=128 dino.model=dino-tiny benchmark.iterations=150
benchmark-voc: install
	$(BIN)/excel benchmark voc --data $(VOC) --store $(STORE) --clip excel-tiny --seeds 1 $(TINY:%=--set %) \
		--set dataset.train_split=train --set "dataset.seed_splits=[train,val]"
	cp "$$(ls -td $(STORE)/benchmark/*/ | head -1)benchmark.md" docs/voc_benchmark.md

figures: demo
	$(BIN)/excel figures docs --store $(STORE)
	$(BIN)/excel segment $$(ls -d $(STORE)/world/*/JPEGImages | head -1)/$(SCENE).jpg --classes "car,cup" \
		--clip excel-tiny --set cams.image_size=128 --set cams.normalisation=clip --set refine.affinity.threshold=0.55 \
		--set "refine.par.dilations=[1,2,4,8]" --steps --out $(STORE)/segment --force
	cp $(STORE)/segment/$(SCENE)_steps.png docs/segment.png

docs: $(VENV)/.docs
	$(BIN)/python docs/diagrams.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: lint
	$(BIN)/python .ci/audit.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed

# The marker is written last, so an interrupted installation starts again. torch comes with torchvision in one command:
# open_clip needs both, and they must fit each other. setup.py compiles the loops in C.
$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The docs extra alone: the site builds without torch.
$(VENV)/.docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > $@.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement $@.txt
	touch $@

clean:
	rm -rf $(VENV)
