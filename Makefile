# Everything happens in a virtual environment of its own: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard ext/pepperpy/network/_core/*)
# Debian packages are installed where something is missing and can be: as root, or through sudo.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test fast map check debug-test sanitize wheels test-next nightly
.PHONY: bench bench-quick bench-ratios bench-guard docs annotate clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py
	$(BIN)/python examples/http_demo.py

# RUN: what starts pytest, as `.ci/run` does with `.ci/again.py`.
test: $(VENV)/installed-test servers
	$(RUN) $(BIN)/python -m pytest $(ARGS)

# Under 20 seconds: each test once, without those that are slow or need a server of others (tests/support/tiers.py). All of
# them in two processes, for two cores.
fast: export FAST = 1
fast: fast-options := --durations=5 --durations-min=0.3
fast: $(VENV)/installed-test
	@if [ -n '$(ARGS)' ]; then exec $(BIN)/python -m pytest $(fast-options) $(ARGS); fi; \
	mkdir -p build; \
	$(BIN)/python -m pytest $(fast-options) tests/http tests/testing >build/fast.log 2>&1 & half=$$!; \
	$(BIN)/python -m pytest $(fast-options) --ignore=tests/http --ignore=tests/testing; failed=$$?; \
	wait $$half || failed=1; cat build/fast.log; exit $$failed

# The table in tests/README.md.
map:
	$(PYTHON) tests/support/tests_map.py

# Lint and types, in an environment without any extra: what a type checker knows of this package must not depend on what
# is installed beside it (httpx excepted, whose classes pepperpy.network.httpx extends). tests/types/ has uses that both
# checkers judge; stubtest compares the stubs with the compiled modules; verifytypes counts the public names whose type
# is written down.
TYPED := $(VENV)-check
STUBS := $(subst /,.,$(basename $(wildcard pepperpy/network/_core/*.pyi)))
check: $(VENV)/installed $(TYPED)/installed
	$(TYPED)/bin/ruff check .
	$(TYPED)/bin/ruff format --check .
	$(TYPED)/bin/mypy
	$(TYPED)/bin/pyright --pythonpath $(TYPED)/bin/python
	$(TYPED)/bin/python -m mypy.stubtest --mypy-config-file pyproject.toml --ignore-disjoint-bases \
		--allowlist tests/types/stubtest.txt $(STUBS)
	PATH="$(abspath $(TYPED)/bin):$$PATH" pyright --verifytypes pepperpy.network --ignoreexternal --outputjson \
		| $(TYPED)/bin/python tests/types/completeness.py 98

$(TYPED)/installed: pyproject.toml
	$(PYTHON) -m venv $(TYPED)
	$(TYPED)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*p["dependencies"], *p["optional-dependencies"]["check"], sep="\n")' >$(TYPED)/requirements.txt
	$(TYPED)/bin/pip install --quiet --disable-pip-version-check -r $(TYPED)/requirements.txt
	@# verifytypes looks at installed packages only.
	echo '$(CURDIR)' >"$$($(TYPED)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
	touch $@

# The whole suite on a build with bounds checks and assertions, which stays out of the source tree.
debug-test: build-needs servers
	$(PYTHON) -m venv $(VENV)-debug
	NET_DEBUG=1 $(VENV)-debug/bin/pip install --quiet --disable-pip-version-check --force-reinstall '.[test]'
	cd tests && ../$(VENV)-debug/bin/python -m pytest $(ARGS)

# The tests of the core on a build with AddressSanitizer, UndefinedBehaviorSanitizer, bounds checks and assertions: some
# minutes. Everything: make sanitize ARGS=. (with the tests folder as the current one). Left out are tests that are
# marked time_bound, with the reason; tests/support/tiers.py. Only the extension is instrumented, so PYTHONMALLOC=malloc
# lets AddressSanitizer see what the extension has of Python's memory; leaks are the interpreter's, and not looked at.
# The folders of what runs on the core, and of tcp/ what the core does in no test of theirs: a plain connection that goes
# on with TLS, bytes and a reset that the loop finds at once.
SANITIZED := core messages requests streams tcp/test_start_tls.py tcp/test_unread_reset.py
REPORTS := $(CURDIR)/build/sanitize/report
sanitize: build-needs servers
	$(PYTHON) -m venv $(VENV)-sanitize
	NET_SANITIZE=1 CC=gcc $(VENV)-sanitize/bin/pip install --quiet --disable-pip-version-check '.[test]'
	rm -f $(REPORTS)*
	cd tests && \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:log_path=$(REPORTS) \
		UBSAN_OPTIONS=print_stacktrace=1:log_path=$(REPORTS) \
		$(RUN) ../$(VENV)-sanitize/bin/python -m pytest -m 'not time_bound' -o timeout=600 $(or $(ARGS),$(SANITIZED)) \
		|| { cat $(REPORTS)* 2>/dev/null; false; }
	@! ls $(REPORTS)* 2>/dev/null

# Wheels for each CPython found, checked, and a short form of the suite against each of them, installed, away from the
# source tree; FULL=1: the whole suite. docs/releasing.md says what is checked.
wheels: build-needs servers
	$(PYTHON) .ci/wheels.py all $(if $(FULL),--form full --twice all) $(ARGS)

# The same on CPython 3.14 and 3.15 of Debian's unstable release, in a folder below ~/.cache: .ci/debian-next.
test-next: build-needs servers
	.ci/debian-next make
	$(PYTHON) .ci/wheels.py all --next $(if $(FULL),--form full) $(ARGS)

# Hours: all tests in their long form (tests/support/tiers.py: thousands of games, every allocation failed once), as they
# are built for users, with assertions, and under the sanitizers; the whole suite against each wheel, also with eager
# tasks; the demo 50 times; the instruction counts.
nightly: export NIGHTLY = 1
nightly:
	$(MAKE) --no-print-directory test
	.ci/debian-next make || true
	NIGHTLY=0 LOOPS=asyncio-debug,uvloop,asyncio-eager $(MAKE) --no-print-directory wheels FULL=1
	$(MAKE) --no-print-directory debug-test
	$(MAKE) --no-print-directory sanitize ARGS=.
	for run in $$(seq 50); do $(MAKE) --no-print-directory demo >build/demo.log 2>&1 || { cat build/demo.log; exit 1; }; done
	$(MAKE) --no-print-directory bench-guard

# Everything beside its peers, under 40 minutes; see benchmarks/README.md. A part: make bench ARGS="-k 'echo_64 and not trio'"
# In an environment of its own: the tests would meet the plugins that some peers bring.
OUT ?= build/bench
bench: export BENCH_COMMAND = make bench$(if $(ARGS), ARGS="$(ARGS)")
bench: servers
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench $(VENV)-bench/installed-bench
	$(VENV)-bench/bin/python -m pytest benchmarks -q -o timeout=0 --out $(OUT) $(ARGS)

# The same for a few workloads and peers; under a minute.
bench-quick: export BENCH_COMMAND = make bench-quick$(if $(ARGS), ARGS="$(ARGS)")
bench-quick: servers
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench $(VENV)-bench/installed-bench
	$(VENV)-bench/bin/python -m pytest benchmarks -q -o timeout=0 --quick --out $(OUT)-quick $(ARGS)

# Half a minute: fails when throughput is lost beside asyncio streams and aiohttp.
bench-ratios: $(VENV)/installed-test servers
	$(BIN)/python benchmarks/ratios.py

# Some minutes: counts instructions, and shows which function grew. A part: make bench-guard ARGS=send
bench-guard: $(VENV)/installed-test
	@command -v valgrind >/dev/null || $(MAKE) --no-print-directory debian PACKAGES=valgrind
	$(BIN)/python benchmarks/guard.py $(ARGS)

# The pages of docs/ in build/docs; each warning is an error.
docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

# Cython's report of the core, build/annotate/*.html: the yellower a line, the more of it goes through Python's C API.
annotate: $(VENV)/installed
	$(BIN)/pip install --quiet setuptools 'Cython>=3.1'
	NET_ANNOTATE=1 $(BIN)/python setup.py --quiet --version
	cp build/annotate/cython/ext/pepperpy/network/_core/*.html build/annotate

# A line for each package and each file that is translated and compiled; all that pip says only if it fails.
PROGRESS := s|^ *Collecting \([A-Za-z0-9_.-]*\).*|  getting \1|p; s|.*\(\[[ 0-9/]*\]\) Cythonizing .*/\(.*\)\.pyx$$|  \1 translating \2|p; \
	s|.*building .*\._core\.\([a-z_]*\). extension$$|  compiling \1|p; s|^Installing collected.*|  installing|p
$(VENV)/installed: $(SOURCES) | build-needs
	@echo "Making the environment $(VENV), and compiling the core: about a minute."
	$(PYTHON) -m venv $(VENV)
	@rm -f $@
	@{ $(BIN)/pip install --verbose --progress-bar off --disable-pip-version-check --editable . 2>&1 && touch $@; } \
		| tee $(VENV)/install.log | sed -un '$(PROGRESS)'
	@test -e $@ || { tail -n 60 $(VENV)/install.log >&2; false; }

$(VENV)/installed-%: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

.PHONY: build-needs
build-needs:
	@missing=; \
	command -v gcc >/dev/null || missing="gcc libc6-dev"; \
	$(PYTHON) -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
		|| missing="$$missing python3-venv python3-dev"; \
	test -z "$$missing" || $(MAKE) --no-print-directory debian PACKAGES="$$missing"

# The other end of the tests. Debian has nginx where only root's PATH looks, and PostgreSQL in a folder for each version.
.PHONY: servers debian
servers:
	@PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)"; missing=; \
	for pair in redis-server:redis-server nginx:nginx-light tinyproxy:tinyproxy microsocks:microsocks openssl:openssl \
		memcached:memcached nats-server:nats-server initdb:postgresql lighttpd:lighttpd socat:socat squid:squid; do \
		command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	test -z "$$missing" || $(MAKE) --no-print-directory debian PACKAGES="$$missing"

# Asks first, unless told: YES=1, or CI as CI services set it.
debian:
	@command -v apt-get >/dev/null || { echo "Please install: $(PACKAGES)" >&2; exit 1; }
	@if [ -z "$(YES)$(CI)" ]; then \
		printf 'Install these Debian packages: $(PACKAGES)? [y/N] '; read answer; \
		case "$$answer" in [yY]*) ;; *) echo "Please install: $(PACKAGES)" >&2; exit 1 ;; esac; \
	fi
	$(AS_ROOT) apt-get update -q
	$(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(PACKAGES)

clean:
	rm -rf build dist *.egg-info .venv* pepperpy/network/_core/*.so
