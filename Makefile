# course: set up and run the main job · check: the quick tests · test: all of them · lab: open the chapters
# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: course check test lab docs notebooks bench claims models clean

course: .venv/course   ## set up, fine-tune, say where the plot and the model are
	$(BIN)/course run --out runs/first --force

check: models          ## in three minutes: ruff, the package agrees with the notebooks, the tests that train nothing long
	$(BIN)/ruff check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" tests

test: models           ## the package agrees with the notebooks, pytest, every notebook through nbval; those first, since they take longest
	$(BIN)/ruff check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder nbs tests

lab: .venv/course      ## JupyterLab on the chapters
	$(BIN)/course lab

docs: .venv/dev        ## the site, where quarto is installed (https://quarto.org)
	$(BIN)/python scripts/build_site.py

notebooks: .venv/dev   ## after editing a notebook: export the package, run the notebooks, store what they show
	$(BIN)/nbdev_export
	$(BIN)/python scripts/run_notebooks.py

bench: .venv/dev       ## our loop beside others on this machine, one thread, about half an hour; the page of the bench shows it
	OMP_NUM_THREADS=1 $(BIN)/course bench --json > data/bench.json.new
	mv data/bench.json.new data/bench.json

claims: .venv/dev      ## the experiments behind the ledger of claims: hours; stopped and started again, it goes on
	OMP_NUM_THREADS=1 $(BIN)/course claims --minutes 1000 --out runs/claims
	cp runs/claims/claims.csv runs/claims/claims-runs.parquet data/
	$(BIN)/course claims --check --out data

models: .venv/dev      ## fetch what the tests read; what is there already isn't fetched again
	$(BIN)/course download smollm2
	$(BIN)/course download minilm

clean:
	rm -rf .venv runs build dist *.egg-info _docs _proc

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing: on Debian and Ubuntu, apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/course: .venv/bin/python settings.ini constraints.txt setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab]'
	@touch $@

.venv/dev: .venv/bin/python settings.ini constraints.txt setup.py
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lab,dev]'
	@touch $@ .venv/course
