# Every target sets up .venv by itself, once, and again when pyproject.toml or constraints.txt change.
# Choose the interpreter with `make run PYTHON=python3.12`; pip reads its own settings (PIP_INDEX_URL, …).

PYTHON ?= python3
RUN ?= runs/ioi-smollm2
PORT ?= 8501
PY := .venv/bin/python
READY := .venv/.ready
SETTING_UP := .venv/.setting-up

# Installing compiles nothing (half of the time of set-up): what is imported is compiled then, and must be kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run discover dashboard test check bench clean

help:  ## List the targets.
	@grep -E '^[a-z]+: .*##' Makefile | sed -e 's/:.*##/\t/' | expand -t 12

run: discover  ## Find the IOI circuit in SmolLM2, then open the dashboard on it.
	@$(PY) -m dashboard --run "$(RUN)" --port "$(PORT)"

discover: $(READY)  ## Find the IOI circuit in SmolLM2 and print its summary; an existing run is shown again.
	@$(PY) -m lens.cli fetch smollm2
	@if [ -f "$(RUN)/run.json" ]; then $(PY) -m circuits.cli show "$(RUN)"; \
	else $(PY) -m circuits.cli discover ioi --model smollm2 --method eap-ig --examples 32 --edges 1000 \
	  --out "$(RUN)"; fi

dashboard: $(READY)  ## Open the dashboard.
	@$(PY) -m dashboard --port "$(PORT)"

# Two workers with one thread each: see CONTRIBUTING.md, "Tests". Choose tests with `make test ARGS="-k ioi"`.
test: $(READY)  ## Run all tests; browser tests are skipped where there is no Chromium.
	@$(PY) -m lens.cli fetch smollm2 || echo "Tests of SmolLM2 need it fetched; going on without." >&2
	@$(PY) -m lens.cli fetch minilm || echo "Tests of MiniLM need it fetched; going on without." >&2
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup $(ARGS)

check: $(READY)  ## Lint, formatting, types, direction of imports.
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m basedpyright
	@$(PY) -c "from importlinter.cli import lint_imports_command as main; main()" --no-logo

bench: $(READY)  ## Measure ratios against Hugging Face and TransformerLens.
	@$(PY) -m lens.cli fetch smollm2
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks $(ARGS)

clean:  ## Remove what set-up and checks made. Runs and fetched models stay.
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache build dist screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A set-up that was interrupted leaves $(SETTING_UP) behind and starts from nothing the next time.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$("$(PYTHON)" -V 2>/dev/null || echo missing)." \
	       "Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@if [ -e $(SETTING_UP) ]; then \
	  if kill -0 "$$(cat $(SETTING_UP))" 2>/dev/null; then \
	    echo "Another make is setting up .venv; wait for it." >&2; exit 1; fi; \
	  rm -rf .venv; fi
	@$(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || rm -rf .venv
	@[ -d .venv ] || mkdir .venv
	@echo "Setting up .venv: about a minute, more where torch has to be downloaded."; \
	  echo $$$$ > $(SETTING_UP) && \
	  { [ -x $(PY) ] || "$(PYTHON)" -m venv .venv; } && \
	  { [ -t 1 ] || quiet=--quiet; } && \
	  $(PY) -m pip install $$quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[test,dev]" && \
	  rm $(SETTING_UP) && touch $@
