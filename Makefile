# The stages in order, each run only when something it reads has changed.
#
## make demo              made-up clips through every stage to the table of results
## make real DATA=dir     the same stages on real clips: dir/UCF-101, dir/ucfTrainTestlist and
##                        dir/VGG.model (or VGG=file, a model or an .npz of weights, see
##                        convertWeights.py); what is in dir is read, never written
## make splits ROOT=dir   the stages on splits 1, 2 and 3 of dir (UCF-101, ucfTrainTestlist,
##                        VGG.model) in dir/split1 ..., and the mean over them, as papers report
## make flow              the demo's second stream: optical flow through the same stages, then both
##                        streams combined (docs/flow.md)
## make films             films in, events out: films that it draws and annotates, cut, learned from;
##                        events found in films of other people, and scored (docs/films.md)
## make test              the tests (TESTS=tests/stages/test_rnn.py for some of them)
## make bench             speed of the networks and of decoding, beside PyTorch and OpenVINO if
##                        requirements-bench.txt is installed; docs/performance.md
## make lock              renews requirements-lock*.txt, from which .venv is set up, out of
##                        requirements*.txt (by uv, which is fetched into .venv-uv)
## make clean             removes the demos; .venv and the trial on real clips stay
##
## Variables, with their defaults:
##   PYTHON=python3       makes .venv, once: 3.11 to 3.14 (remove .venv to change it)
##   VENV=.venv           where the packages go
##   SPLIT=1              which of the train/test lists; each wants its own folder, too
##   SEED=0               a second seed wants its own folder: make demo SEED=1 DEMO=demo1
##   DEMO=demo TRIAL=trial    roots of the demo and of the trial on real clips
##   FILMS=demoFilms      root of make films
##   PARTS=2              parts the features are saved in, as batch jobs would

PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= demo
TRIAL  ?= trial
SEED   ?= 0
FILMS   = demoFilms
SPLIT  ?= 1
PARTS  ?= 2
TESTS  ?= tests

# Flags of single stages, such as make demo RNN_FLAGS='--layers 2'; they do not by
# themselves make a finished stage run again.
#   FRAME_FLAGS   FEATURE_FLAGS   PACK_FLAGS   RNN_FLAGS   BENCH_FLAGS

ROOT  = $(DEMO)
RUN   = $(VENV)/bin/python
READY = $(VENV)/ready
WHERE = --root $(ROOT) --split $(SPLIT)
STAGE = $(WHERE) --seed $(SEED)
# Begins a recipe whose model is there but older than what it is made from: away with it and
# with its training. One that was stopped before it wrote its model goes on.
OUTDATED = @[ ! -e $@ ] || rm -rf $@
# Stages end with 3 when all is done but for some clips, which they name.
OR_NAMED = || [ $$? = 3 ]
# Ends a recipe: settles the date of a file that a stage found already right, and never makes one.
WRITTEN = @[ -s $@ ] || { echo "error: $@ was not written" >&2; exit 1; }; touch -c $@

# PYTHON makes the environment; what runs in it (saveFeatures.sh) must not take it for its own.
unexport PYTHON

.PHONY: help demo flow films real real-data splits test bench lock clean stages
.DELETE_ON_ERROR:

help:
	@sed -n 's/^## \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

# The demo's network is small and its classes differ in direction, so it neither mirrors nor
# reverses, and learns faster than the original's settings would let it.
DEMOS = demo flow $(if $(filter $(DEMO),$(ROOT)),splits)
$(DEMOS): export FRAME_FLAGS ?= --features 128 --no-flip --epochs 3 --frames-per-clip 16 --lr 0.005
$(DEMOS): export RNN_FLAGS ?= --no-reverse --steps 48 --window 48 --test-steps 0 --cells 128 --hidden 0 \
	--no-batch-norm --dropout 0.3 --optimizer adam --lr 0.003 --batch 16 --epochs 20
demo: stages

# ---- the stages --------------------------------------------------------------
# A stage also depends on its own script and networks, so an edited stage runs again.
# Stages that write no file of their own leave a mark in ROOT/done.

$(DEMO)/ucfTrainTestlist/testlist01.txt: demo.py | $(READY)
	$(RUN) demo.py clips --root $(DEMO) --seed $(SEED)
	$(WRITTEN)

$(DEMO)/VGG.model: $(DEMO)/ucfTrainTestlist/testlist01.txt demo.py VGGNet.py | $(READY)
	$(RUN) demo.py pretrain --root $(DEMO) --seed $(SEED)
	$(WRITTEN)

$(ROOT)/VGG_1024.model: $(ROOT)/VGG.model $(ROOT)/ucfTrainTestlist/testlist01.txt \
		frameBasedTrain.py VGGNet.py VGGNet_1024.py FusionNet.py | $(READY)
	$(OUTDATED) $(ROOT)/frameTraining
	$(RUN) frameBasedTrain.py $(STAGE) $(FRAME_FLAGS) $(OR_NAMED)
	$(WRITTEN)

$(ROOT)/done/saveFeatures: $(ROOT)/VGG_1024.model saveFeatures_1024.py saveFeatures.sh \
		generate_pbs.py VGGNet_1024.py | $(READY)
	@[ $(ROOT)/UCF-101_features/extraction.json -nt $(ROOT)/VGG_1024.model ] || \
		rm -rf $(ROOT)/UCF-101_features $(ROOT)/UCF-101_framePrediction  # of an older model
	PYTHON=$(RUN) ./saveFeatures.sh --local $(WHERE) --parts $(PARTS) $(FEATURE_FLAGS) $(OR_NAMED)
	@mkdir -p $(@D) && touch $@

# Also writes test1024.hdf5, testPredictions1024.hdf5, validationPredictions1024.hdf5.
$(ROOT)/train1024.hdf5: $(ROOT)/done/saveFeatures save_hdf5.py | $(READY)
	$(RUN) save_hdf5.py $(WHERE) $(PACK_FLAGS) $(OR_NAMED)
	$(WRITTEN)

# Writes into train1024.hdf5, so its mark is what later stages depend on.
$(ROOT)/done/normalizeData: $(ROOT)/train1024.hdf5 normalizeData.py | $(READY)
	$(RUN) normalizeData.py $(WHERE)
	@mkdir -p $(@D) && touch $@

$(ROOT)/done/singleFrameAccuracy: $(ROOT)/done/normalizeData singleFrameAccuracy.py | $(READY)
	$(RUN) singleFrameAccuracy.py $(WHERE)
	@mkdir -p $(@D) && touch $@

# Also writes RNN_testPredictions.hdf5.
$(ROOT)/RNN.model: $(ROOT)/done/normalizeData rnn.py RNNNet.py PoolingNet.py | $(READY)
	$(OUTDATED) $(ROOT)/RNN.training
	$(RUN) rnn.py $(STAGE) $(RNN_FLAGS)
	$(WRITTEN)

$(ROOT)/done/confusion: $(ROOT)/RNN.model confusion.py | $(READY)
	$(RUN) confusion.py $(WHERE)
	@mkdir -p $(@D) && touch $@

stages: $(ROOT)/done/singleFrameAccuracy $(ROOT)/done/confusion
	@$(RUN) results.py --root $(ROOT)

# ---- the second stream -------------------------------------------------------
# It learns in all layers, and more slowly than the pictures' network, hence the flags.

FLOW = $(STAGE) --stream flow

flow: demo
	PYTHON=$(RUN) ./saveFeatures.sh --stage opticalFlow --local $(WHERE) --parts $(PARTS) $(OR_NAMED)
	$(RUN) frameBasedTrain.py $(FLOW) $(FRAME_FLAGS) --epochs 10 --schedule linear --clip 1 $(OR_NAMED)
	PYTHON=$(RUN) ./saveFeatures.sh --local $(FLOW) --parts $(PARTS) $(OR_NAMED)
	$(RUN) save_hdf5.py $(WHERE) --stream flow $(PACK_FLAGS) $(OR_NAMED)
	$(RUN) normalizeData.py $(WHERE) --stream flow
	$(RUN) singleFrameAccuracy.py $(WHERE) --stream flow
	$(RUN) rnn.py $(FLOW) $(RNN_FLAGS)
	$(RUN) combine.py $(STAGE) --choose --name frames_both \
		testPredictions1024.hdf5 testPredictions1024_flow.hdf5
	$(RUN) combine.py $(STAGE) --choose --name RNN_both \
		RNN_testPredictions.hdf5 RNN_flow_testPredictions.hdf5
	@$(RUN) results.py --root $(ROOT)

# ---- films -------------------------------------------------------------------
# Events are found through windows of 32 frames, which show most of an action's cycle.

EVENTS = --root $(FILMS) --seed $(SEED)

films: $(READY)
	$(RUN) demo.py films $(EVENTS)
	$(RUN) demo.py pretrain $(EVENTS)
	$(RUN) cutClips.py $(FILMS)/films --annotations $(FILMS)/marks/* $(EVENTS) --other \
		--other-times all --margin 0.1 --groups subject --test-share 0.1
	$(RUN) frameBasedTrain.py $(EVENTS) --features 128 --no-flip --epochs 3 --frames-per-clip 8 --lr 0.005
	PYTHON=$(RUN) ./saveFeatures.sh --local --root $(FILMS) --parts $(PARTS)
	$(RUN) save_hdf5.py --root $(FILMS)
	$(RUN) normalizeData.py --root $(FILMS)
	$(RUN) rnn.py $(EVENTS) --no-reverse --steps 32 --window 32 --test-steps 0 --cells 128 --hidden 0 \
		--no-batch-norm --dropout 0.5 --optimizer adam --lr 0.003 --schedule cosine --batch 16 --epochs 40 \
		--keep accuracy --no-baseline
	$(RUN) predict.py $(FILMS)/new --root $(FILMS) --out $(FILMS)/seen --events --shortest 1 \
		--subtitles --boris
	$(RUN) eventAccuracy.py --events $(FILMS)/seen --annotations $(FILMS)/newMarks/* --out $(FILMS)/seen

# ---- real clips --------------------------------------------------------------

VGG       ?= $(DATA)/VGG.model
VGG_FLAGS ?=

real: real-data $(READY)
	@$(MAKE) --no-print-directory stages ROOT=$(TRIAL)

real-data:
	@fail() { echo "error: $$*" >&2; exit 1; }; \
	[ -d "$(DATA)/UCF-101" ] && [ -d "$(DATA)/ucfTrainTestlist" ] || \
		fail "DATA='$(DATA)' holds no UCF-101 and ucfTrainTestlist; run: make real DATA=dir"; \
	[ -f "$(VGG)" ] || \
		fail "no $(VGG); run: make real DATA=$(DATA) VGG=weights.npz (or a VGG.model)"

ifneq ($(DATA),)
# Cuts the official lists down to the classes that are there.
$(TRIAL)/ucfTrainTestlist/testlist01.txt: makeSplit.py | $(READY)
	$(RUN) makeSplit.py --root $(TRIAL) --clips $(DATA)/UCF-101 --lists $(DATA)/ucfTrainTestlist
	$(WRITTEN)

ifneq ($(suffix $(VGG)),.model)
$(TRIAL)/VGG.model: $(VGG) convertWeights.py | $(READY)
	$(RUN) convertWeights.py $(VGG) --root $(TRIAL) --seed $(SEED) $(VGG_FLAGS)
	$(WRITTEN)
else
$(TRIAL)/VGG.model: $(VGG) | $(TRIAL)/ucfTrainTestlist/testlist01.txt
	ln -sfn "$$(cd $(<D) && pwd)/$(<F)" $@
endif
endif

# ---- all three splits ----------------------------------------------------------
# Each in a root of its own: what one split tests, another one's models were trained on.

splits: $(READY)
	@for name in UCF-101 ucfTrainTestlist VGG.model; do \
		[ -e "$(ROOT)/$$name" ] || { echo "error: no $(ROOT)/$$name; run first: make demo, or" \
			"python getData.py --root $(ROOT) and python convertWeights.py --root $(ROOT)" >&2; \
			exit 1; }; \
	done
	@for split in 1 2 3; do \
		mkdir -p $(ROOT)/split$$split && \
		( cd $(ROOT)/split$$split && ln -sfn ../UCF-101 ../ucfTrainTestlist ../VGG.model . ) && \
		$(MAKE) --no-print-directory stages ROOT=$(ROOT)/split$$split SPLIT=$$split || exit 1; \
	done
	@$(RUN) results.py --mean splits $(foreach split,1 2 3,--root $(ROOT)/split$(split))

# ---- tests and speed ---------------------------------------------------------

test: $(READY)
	$(RUN) -m pytest -n 2 --dist loadfile --max-worker-restart 0 $(TESTS)

# Not bench.flow and bench.scale, which want clips and disk, and tell by themselves.
BENCHES ?= vgg finetune lstm clips growth gpu

bench: $(READY)
	@for name in $(BENCHES); do $(RUN) -m bench.$$name $(BENCH_FLAGS) || exit 1; done

# ---- set-up ------------------------------------------------------------------
# A PYTHON that the user names is taken or refused; the default gives way to the
# one that VENV was made with, or to a suitable one on PATH. READY is written last,
# so that an interrupted set-up is done again; what the steps say stands in LOG.

NAMED   = $(filter-out file,$(origin PYTHON))
OTHERS  = python3.13 python3.12 python3.11 python3.14
VERSION = import sys; print('%d.%d.%d' % sys.version_info[:3])
FITS    = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PIP     = $(RUN) -m pip install --disable-pip-version-check
LOG     = $(VENV)/setup.log
# Follows a step of the set-up: names the one that failed, its reason, and where the rest stands.
OR_TELL = || { echo "error: setting up $(VENV) failed at \"$(1)\":" \
	"$$(grep -i -m1 '^ *error' $(LOG) || tail -n1 $(LOG)); all that was said: $(LOG)" >&2; exit 1; }

$(READY): requirements-lock-build.txt requirements-lock.txt
	@first() { for p; do "$$p" -c "$(FITS)" 2>/dev/null && echo "$$p" && return; done; false; }; \
	version() { "$$1" -c "$(VERSION)" 2>/dev/null; }; \
	there=$$($(RUN) -m pip --version >/dev/null 2>&1 && version $(RUN)); \
	python=$$(first $(if $(NAMED),,$${there:+$(RUN)}) "$(PYTHON)" $(if $(NAMED),,$(OTHERS))); \
	if [ -z "$$python" ]; then \
		other=$$(first $(OTHERS)) && advice=run || \
			{ other=python3.12; advice="install one, then run"; }; \
		echo "error: Chainer needs Python 3.11, 3.12, 3.13 or 3.14 and $(PYTHON) is" \
			"$$(version "$(PYTHON)" || echo "not there"); $$advice:" \
			"make $(or $(MAKECMDGOALS),demo) PYTHON=$$other" >&2; \
		exit 1; \
	fi; \
	echo "Python $$(version "$$python"): setting up $(VENV), once (about a minute)"; \
	said= code=0; \
	[ "$$there" = "$$(version "$$python")" ] || \
		{ said=$$("$$python" -m venv --clear $(VENV) 2>&1); code=$$?; }; \
	mkdir -p $(VENV) && echo "$$said" >$(LOG) && [ $$code = 0 ] $(call OR_TELL,python -m venv)
	@$(PIP) --require-hashes -r requirements-lock-build.txt >>$(LOG) 2>&1 \
		$(call OR_TELL,pip install -r requirements-lock-build.txt)
	@$(PIP) --require-hashes --no-build-isolation -r requirements-lock.txt >>$(LOG) 2>&1 \
		$(call OR_TELL,pip install -r requirements-lock.txt)
	@touch $@

# The lock files: what all of requirements*.txt but GPU and bench come to, each version with the
# digests of its files, for all of Python 3.11 to 3.14 and every system in one.
LOCK = .venv-uv/bin/uv pip compile --quiet --universal --generate-hashes --upgrade \
	--python-version 3.11 --custom-compile-command 'make lock'

lock:
	python=$$(command -v "$(PYTHON)" $(OTHERS) | head -n1) && "$$python" -m venv .venv-uv
	.venv-uv/bin/pip install --quiet --disable-pip-version-check uv
	$(LOCK) requirements-build.txt -o requirements-lock-build.txt
	$(LOCK) --build-constraints requirements-lock-build.txt -o requirements-lock.txt \
		requirements.txt requirements-test.txt requirements-build.txt

clean:
	rm -rf $(DEMO) $(FILMS) build .pytest_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
